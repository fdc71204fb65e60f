"""Co-DETR: customized positive queries, attention masks between groups, and inference without auxiliary parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.boxes import normalize_boxes
from poise.detection_model import DetectionModel
from poise.detectors import QueryDetector
from poise.models import create_model
from poise.models.auxiliary import AUXILIARY
from poise.models.roles import without_training_parts
from poise.nn.transformer.queries import DecoderOutput, concatenate_with_mask
from poise.structures import GroundTruth, PairWeights, Progress

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 4, "hidden": 32, "queries": 20, "encoder_layers": 1}
SMALL |= {
    "decoder_layers": 2,
    "max_auxiliary_queries": 40,
    "backbone": "test_resnet",
    "region_hidden": 32,
    "regions": 64,
}
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
def test_inference_equals_the_plain_detector(name: str) -> None:
    model, plain = small(name).eval(), small(name, auxiliary_heads="").eval()
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
    """Queries of one group do not attend to those of another."""
    network: Any = small(name, deterministic=True).eval().network
    assert isinstance(network, QueryDetector) and network.collaboration is not None
    truth = truth_of([4, 2])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    queries = network.queries(memory)
    _, auxiliary = network.collaboration(memory, truth, Progress.final())
    joint, mask = concatenate_with_mask(queries, auxiliary)
    together: DecoderOutput = network.decoder(joint, memory, mask)
    start = 0
    for part in auxiliary:
        used = part.groups[0] >= 0
        alone = replace(
            part.queries,
            content=part.queries.content[:, used],
            references=part.queries.references[:, used],
            positions=None if part.queries.positions is None else part.queries.positions[:, used],
        )
        expected = network.decoder(alone, memory)
        count = len(used)
        torch.testing.assert_close(
            together.logits[:, :, start : start + count][:, :, used], expected.logits, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            together.boxes[:, :, start : start + count][:, :, used], expected.boxes, atol=1e-5, rtol=1e-4
        )
        start += count
    plain = network.decoder(queries, memory)
    torch.testing.assert_close(together.logits[:, :, start:], plain.logits, atol=1e-4, rtol=1e-4)


def test_customized_positive_queries() -> None:
    """The priors of a head's positives in order, then negatives, equally many in every image, at least nine."""
    network: Any = small("co_deformable_detr_r18", deterministic=True).eval().network
    truth = truth_of([5, 1])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    output, auxiliary = network.collaboration(memory, truth, Progress.final())
    for part, match in zip(auxiliary, (output.matches["faster_rcnn/rcnn"], output.matches["atss/dense"]), strict=True):
        positive = match.assignment.positive
        count = min(40, max(9, int(positive.sum(1).max())))
        assert int((part.groups >= 0).sum()) == count
        boxes = match.predictions.priors.boxes.expand(2, -1, -1)
        for b in range(2):
            priors = [
                *positive[b].nonzero().flatten().tolist(),
                *match.assignment.negative[b].nonzero().flatten().tolist(),
            ]
            normalized = normalize_boxes(boxes, truth.sizes)[b, priors[:count]]
            torch.testing.assert_close(part.queries.references[b, :count], normalized)
            assignment = part.assignment
            assert torch.equal(assignment.positive[b, :count], positive[b, priors[:count]])
            assert torch.equal(assignment.index[b, :count], match.assignment.index[b, priors[:count]])
            assert bool(assignment.ignored[b, count:].all()) and not assignment.ignored[b, :count].any()


def test_only_positives_become_queries_as_in_the_article() -> None:
    network: Any = small("co_dino_5scale_r18", pad_with_negatives=False).eval().network
    truth = truth_of([4, 0])
    memory = network.encode(torch.randn(2, 3, 96, 96), truth.sizes)
    _, auxiliary = network.collaboration(memory, truth, Progress.final())
    for part in auxiliary:
        assert torch.equal(part.assignment.positive, part.groups >= 0)
        assert int(part.assignment.positive[0].sum()) >= 4 and not part.assignment.positive[1].any()


@pytest.mark.parametrize("counts", [[3, 1], [0, 0]], ids=["some", "none"])
@pytest.mark.parametrize("head", AUXILIARY)
def test_any_head_can_be_auxiliary(head: str, counts: list[int]) -> None:
    """Each trains with finite gradients everywhere, and makes positive queries where there are objects."""
    model = small("co_dino_5scale_r18", auxiliary_heads=head).train()
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


def test_priors_with_high_weights_are_positive() -> None:
    """At least half of the object's highest weight; each prior is assigned to the object with its highest weight."""
    positive = torch.tensor([[[0.8, 0.0], [0.3, 0.1], [0.5, 0.2], [0.0, 0.0]]])
    assignment = PairWeights(positive, torch.zeros(1, 4, 3)).hard(0.5)
    assert assignment.positive.tolist() == [[True, True, True, False]]
    assert assignment.index[0, :3].tolist() == [0, 1, 0]
    few = PairWeights(positive[:, [0, 2]], torch.zeros(1, 6, 3), prior_index=torch.tensor([[[4, 1], [3, 2]]]))
    assert few.hard(0.5).positive.tolist() == [[False, False, True, True, True, False]]
    nothing = PairWeights(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3)).hard(0.5)
    assert not nothing.positive.any()


@each
@pytest.mark.parametrize("pad", [True, False])
def test_a_pass_for_each_head_has_the_same_losses(name: str, pad: bool) -> None:
    together, apart = (
        losses_of(small(name, one_pass=one_pass, pad_with_negatives=pad, deterministic=True).eval(), [3, 1])
        for one_pass in (True, False)
    )
    assert together.keys() == apart.keys()
    for key, loss in together.items():
        torch.testing.assert_close(apart[key], loss, rtol=1e-3, atol=1e-4)


def test_weights_of_the_article() -> None:
    """lambda_1 weights the losses of auxiliary queries, lambda_2 those of the heads."""
    options = {"deterministic": True, "auxiliary_heads": "atss"}
    plain, weighed = (
        losses_of(small("co_dino_5scale_r18", **options, **more).eval(), [3, 1])
        for more in ({}, {"auxiliary_query_weight": 0.5, "auxiliary_head_weight": 6.0})
    )
    for key, loss in plain.items():
        factor = 0.5 if "_aux" in key else 3.0 if key in ("loss_cls0", "loss_bbox0", "loss_centerness0") else 1.0
        torch.testing.assert_close(weighed[key], factor * loss, rtol=1e-4, atol=1e-5)


def test_features_of_the_article_in_co_dino() -> None:
    model = small("co_dino_5scale_r18", query_features=True, auxiliary_heads="atss").train()
    torch.stack(list(losses_of(model, [3, 1]).values())).sum().backward()
    projection = [p.grad for key, p in model.named_parameters() if ".project_features." in key]
    assert len(projection) == 4 and all(grad is not None and grad.isfinite().all() for grad in projection)


@pytest.mark.parametrize("name", ["conditional_detr_r18", "dab_detr_r18"])
def test_single_scale_decoders(name: str) -> None:
    """The article's adapter makes five levels of one map; inference has no auxiliary parts."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "queries": 8, "encoder_layers": 1}
    options |= {"decoder_layers": 2, "backbone": "test_resnet"}
    model = create_model(name, num_classes=3, auxiliary_heads="atss,fcos", **options).train()
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
    losses = losses_of(small("co_deformable_detr_r18", auxiliary_heads="atss, atss"), [3, 1])
    assert {"loss_cls0", "loss_cls1", "loss_cls_aux0", "d0.loss_iou_aux1"} <= set(losses)
    with pytest.raises(ValueError, match="faster_rcnn"):
        small("co_deformable_detr_r18", auxiliary_heads="fast_rcnn")


def test_auxiliary_heads_detect_by_themselves() -> None:
    network: Any = small("co_deformable_detr_r18").eval().network
    pixels, sizes = torch.randn(2, 3, 96, 96), torch.full((2, 2), 96.0)
    for number in range(2):
        found = network.collaboration.predict(network.encode(pixels, sizes), sizes, number)
        assert found.boxes.shape[0] == 2 and bool(found.valid.any())


@each
def test_images_smaller_than_a_stride(name: str) -> None:
    model = small(name).train()
    model.network.backbone.eval()  # type: ignore[union-attr]  # a single cell has no batch statistics
    targets = [{"boxes": torch.tensor([[1.0, 1.0, 4.0, 6.0]]), "labels": torch.tensor([0])}]
    losses = model.losses(torch.randn(1, 3, 7, 5), targets)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


@each
def test_more_positives_than_queries(name: str) -> None:
    """Sixty objects and a limit of ten: ten of the positives, and finite losses."""
    model = small(name, max_auxiliary_queries=10, auxiliary_heads="atss").train()
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
            if "prediction_head" in key and key.endswith("classes.weight"):
                parameter *= 1e6
    with torch.autocast("cpu", dtype=torch.float16):
        assert all(loss.isfinite() for loss in losses_of(model, [3, 0]).values())
