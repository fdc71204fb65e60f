"""Co-DETR's collaboration: what is lent, that groups stay apart, and that inference knows nothing of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.boxes import normalize_boxes
from poise.detectors import DetectionModel, QueryDetector
from poise.detectors.collaboration import foremost
from poise.models import create_model
from poise.models.auxiliary import AUXILIARY
from poise.models.roles import without_training_parts
from poise.nn.transformer.queries import DecoderOutput, joined
from poise.structures import GroundTruth, PairWeights, Progress

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 4, "hidden": 32, "queries": 20, "encoder_layers": 1}
SMALL |= {"decoder_layers": 2, "lent": 40, "backbone": "test_resnet", "region_hidden": 32, "regions": 64}
NAMES = ("co_deformable_detr_r18", "co_dino_5scale_r18")
each = pytest.mark.parametrize("name", NAMES)


def small(name: str, **options: Any) -> DetectionModel:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **{**SMALL, **options})


def truth_of(counts: list[int], seed: int = 0) -> GroundTruth:
    generator, targets = torch.Generator().manual_seed(seed), []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 60
        boxes = torch.cat((corner, corner + 8 + 28 * torch.rand(count, 2, generator=generator)), 1)
        targets.append({"boxes": boxes, "labels": torch.randint(3, (count,), generator=generator)})
    return GroundTruth.collate(targets, [(96, 96)] * len(counts))


def losses_of(model: DetectionModel, counts: list[int]) -> dict[str, Tensor]:
    truth, pixels = truth_of(counts), torch.randn(len(counts), 3, 96, 96, generator=torch.Generator().manual_seed(3))
    targets = [
        {"boxes": truth.boxes[i][truth.valid[i]], "labels": truth.labels[i][truth.valid[i]]} for i in range(len(counts))
    ]
    return model.losses(pixels, targets)


@each
@pytest.mark.parametrize("counts", [[3, 1], [2, 0], [0, 0], [60, 1]], ids=["some", "one without", "none", "crowded"])
def test_finite_losses_with_a_gradient_for_every_parameter(name: str, counts: list[int]) -> None:
    model = small(name).train()
    losses = losses_of(model, counts)
    assert all(loss.isfinite() for loss in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@each
def test_inference_is_the_plain_detectors(name: str) -> None:
    model, plain = small(name).eval(), small(name, heads="").eval()
    state = {key: value for key, value in model.state_dict().items() if ".collaboration." not in key}
    assert len(state) < len(model.state_dict())
    plain.load_state_dict(state)
    assert sum(p.numel() for p in plain.parameters()) == sum(
        value.numel() for key, value in state.items() if "running" not in key and "tracked" not in key
    )
    pixels = torch.randn(2, 3, 96, 96)
    for a, b in zip(model.detect(pixels), plain.detect(pixels), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


@each
def test_one_pass_equals_a_pass_for_each_group(name: str) -> None:
    """Queries of one group neither see nor disturb those of another."""
    network: Any = small(name, deterministic=True).eval().network
    assert isinstance(network, QueryDetector) and network.collaboration is not None
    truth = truth_of([4, 2])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    queries = network.queries(memory)
    _, lent = network.collaboration(memory, truth, Progress.final())
    asked, blocked = joined(queries, lent)
    together: DecoderOutput = network.decoder(asked, memory, blocked)
    start = 0
    for part in lent:
        used = part.groups[0] >= 0
        alone = replace(
            part.queries,
            content=part.queries.content[:, used],
            references=part.queries.references[:, used],
            positions=None if part.queries.positions is None else part.queries.positions[:, used],
        )
        wanted = network.decoder(alone, memory)
        count = len(used)
        torch.testing.assert_close(
            together.logits[:, :, start : start + count][:, :, used], wanted.logits, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            together.boxes[:, :, start : start + count][:, :, used], wanted.boxes, atol=1e-5, rtol=1e-4
        )
        start += count
    plain = network.decoder(queries, memory)
    torch.testing.assert_close(together.logits[:, :, start:], plain.logits, atol=1e-4, rtol=1e-4)


def test_what_is_lent() -> None:
    """The places of a branch's positives in order, then negatives, as many in every image, at least nine."""
    network: Any = small("co_deformable_detr_r18", deterministic=True).eval().network
    truth = truth_of([5, 1])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    output, lent = network.collaboration(memory, truth, Progress.final())
    for part, match in zip(lent, (output.matches["faster_rcnn/rcnn"], output.matches["atss/dense"]), strict=True):
        positive = match.assignment.positive
        count = min(40, max(9, int(positive.sum(1).max())))
        assert int((part.groups >= 0).sum()) == count
        boxes = match.predictions.priors.boxes.expand(2, -1, -1)
        for b in range(2):
            places = [
                *positive[b].nonzero().flatten().tolist(),
                *match.assignment.negative[b].nonzero().flatten().tolist(),
            ]
            shares = normalize_boxes(boxes, truth.sizes)[b, places[:count]]
            torch.testing.assert_close(part.queries.references[b, :count], shares)
            told = part.assignment
            assert torch.equal(told.positive[b, :count], positive[b, places[:count]])
            assert torch.equal(told.index[b, :count], match.assignment.index[b, places[:count]])
            assert bool(told.ignored[b, count:].all()) and not told.ignored[b, :count].any()


def test_only_positives_are_lent_as_in_the_article() -> None:
    network: Any = small("co_dino_5scale_r18", fill=False).eval().network
    truth = truth_of([4, 0])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    _, lent = network.collaboration(memory, truth, Progress.final())
    for part in lent:
        assert torch.equal(part.assignment.positive, part.groups >= 0)
        assert int(part.assignment.positive[0].sum()) >= 4 and not part.assignment.positive[1].any()


@pytest.mark.parametrize("counts", [[3, 1], [0, 0]], ids=["some", "none"])
@pytest.mark.parametrize("head", AUXILIARY)
def test_any_head_can_help(head: str, counts: list[int]) -> None:
    """Each trains with finite gradients everywhere, and lends queries that stand on objects."""
    model = small("co_dino_5scale_r18", heads=head).train()
    losses = losses_of(model, counts)
    assert "loss_cls_aux0" in losses
    torch.stack(list(losses.values())).sum().backward()
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), key
    network: Any = model.network
    truth = truth_of(counts)
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    _, (part,) = network.collaboration(memory, truth, Progress.final())
    assert bool(part.assignment.positive.any()) == any(counts)


def test_places_that_weigh_most_count_as_positive() -> None:
    """Half as much as the best place of the object, at least; each place answers to its heaviest object."""
    positive = torch.tensor([[[0.8, 0.0], [0.3, 0.1], [0.5, 0.2], [0.0, 0.0]]])
    told = foremost(PairWeights(positive, torch.zeros(1, 4, 3)))
    assert told.positive.tolist() == [[True, True, True, False]]
    assert told.index[0, :3].tolist() == [0, 1, 0]
    few = PairWeights(positive[:, [0, 2]], torch.zeros(1, 6, 3), prior_index=torch.tensor([[[4, 1], [3, 2]]]))
    assert foremost(few).positive.tolist() == [[False, False, True, True, True, False]]
    nothing = foremost(PairWeights(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3)))
    assert not nothing.positive.any()


@each
@pytest.mark.parametrize("fill", [True, False])
def test_a_pass_of_their_own_loses_the_same(name: str, fill: bool) -> None:
    together, apart = (
        losses_of(small(name, one_pass=one_pass, fill=fill, deterministic=True).eval(), [3, 1])
        for one_pass in (True, False)
    )
    assert together.keys() == apart.keys()
    for key, loss in together.items():
        torch.testing.assert_close(apart[key], loss, rtol=1e-3, atol=1e-4)


def test_weights_of_the_article() -> None:
    """lambda_1 weighs the lent queries' losses, lambda_2 the heads', each alone."""
    options = {"deterministic": True, "heads": "atss"}
    plain, weighed = (
        losses_of(small("co_dino_5scale_r18", **options, **more).eval(), [3, 1])
        for more in ({}, {"auxiliary_query_weight": 0.5, "head_weight": 6.0})
    )
    for key, loss in plain.items():
        factor = 0.5 if "_aux" in key else 3.0 if key in ("loss_cls0", "loss_bbox0", "loss_centerness0") else 1.0
        torch.testing.assert_close(weighed[key], factor * loss, rtol=1e-4, atol=1e-5)


def test_features_of_the_article_in_co_dino() -> None:
    model = small("co_dino_5scale_r18", features=True, heads="atss").train()
    torch.stack(list(losses_of(model, [3, 1]).values())).sum().backward()
    seen = [p.grad for key, p in model.named_parameters() if ".make.seen." in key]
    assert len(seen) == 4 and all(grad is not None and grad.isfinite().all() for grad in seen)


@pytest.mark.parametrize("name", ["conditional_detr_r18", "dab_detr_r18"])
def test_decoders_of_one_scale_are_helped_too(name: str) -> None:
    """The article's adapter makes five levels of one map; nothing of it is left in inference."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"channels": 16, "heads": 2, "hidden": 32, "queries": 8, "encoder_layers": 1}
    options |= {"decoder_layers": 2, "backbone": "test_resnet"}
    model = create_model(name, num_classes=3, auxiliary="atss,fcos", **options).train()
    for counts in ([3, 1], [0, 0]):
        model.zero_grad()
        losses = losses_of(model, counts)
        assert {"loss_cls0", "loss_cls1", "loss_cls_aux0", "d0.loss_iou_aux1"} <= set(losses)
        torch.stack(list(losses.values())).sum().backward()
        assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    network: Any = model.eval().network
    memory = network.encode(torch.randn(1, 3, 96, 96), torch.full((1, 2), 96.0))
    assert [level.shape[-1] for level in network.collaboration.pyramid(memory)] == [12, 6, 3, 2, 1]
    plain, pixels = without_training_parts(model), torch.randn(2, 3, 96, 96)
    for a, b in zip(model.detect(pixels), plain.detect(pixels), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_head_twice_and_unknown_heads() -> None:
    losses = losses_of(small("co_deformable_detr_r18", heads="atss, atss"), [3, 1])
    assert {"loss_cls0", "loss_cls1", "loss_cls_aux0", "d0.loss_iou_aux1"} <= set(losses)
    with pytest.raises(ValueError, match="faster_rcnn"):
        small("co_deformable_detr_r18", heads="fast_rcnn")


def test_branches_detect_by_themselves() -> None:
    network: Any = small("co_deformable_detr_r18").eval().network
    pixels, sizes = torch.randn(2, 3, 96, 96), torch.full((2, 2), 96.0)
    for number in range(2):
        found = network.collaboration.predict(network.encode(pixels, sizes), sizes, number)
        assert found.boxes.shape[0] == 2 and bool(found.valid.any())


@each
def test_pictures_smaller_than_a_stride(name: str) -> None:
    model = small(name).train()
    model.network.backbone.eval()  # type: ignore[union-attr]  # a single cell has no batch statistics
    targets = [{"boxes": torch.tensor([[1.0, 1.0, 4.0, 6.0]]), "labels": torch.tensor([0])}]
    losses = model.losses(torch.randn(1, 3, 7, 5), targets)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


@each
def test_more_positives_than_are_lent(name: str) -> None:
    """Sixty objects and a limit of ten: ten of the positives, and finite losses."""
    model = small(name, lent=10, heads="atss").train()
    network: Any = model.network
    truth = truth_of([60, 2])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    output, (part,) = network.collaboration(memory, truth, Progress.final())
    assert int(output.matches["atss/dense"].assignment.positive[0].sum()) > 10
    assert part.groups.shape[1] == 10 and bool(part.assignment.positive[0].all())
    assert all(loss.isfinite() for loss in losses_of(model, [60, 2]).values())


@each
def test_costs_that_overflow_half_precision(name: str) -> None:
    model = small(name).train()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("output.classes.weight") or ("decoder.outputs" in key and "classes.weight" in key):
                parameter *= 1e6
    with torch.autocast("cpu", dtype=torch.float16):
        assert all(loss.isfinite() for loss in losses_of(model, [3, 0]).values())
