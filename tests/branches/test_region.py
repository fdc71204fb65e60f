"""Parts of the two-stage branch against literal forms, and edge cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder, pairwise_iou
from poise.branches.proposals import ProposalPostProcessByImage
from poise.branches.region import ProposalPostProcess, RegionBranch, add_ground_truth, assign_regions, only_usable
from poise.detection_model import proposals_from_boxes
from poise.models import create_model
from poise.models.faster_rcnn import fast_rcnn
from poise.nn.kernels.roi_align import RegionAlign
from poise.structures import Batch, Detections, GroundTruth, Predictions, Priors, Progress

SIZE = 96


def random_boxes(count: int, seed: int, side: float = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side * 0.8
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) ** 2 * side * 0.6), 1)


def predictions(batch: int = 2, levels: tuple[int, ...] = (300, 80, 20), seed: int = 0) -> Predictions:
    """Overlapping boxes with scores of which no two are equal."""
    anchors = sum(levels)
    boxes = torch.stack([random_boxes(anchors, seed + i) - 5 for i in range(batch)])
    logits = torch.randn(batch, anchors, 1, generator=torch.Generator().manual_seed(seed))
    return Predictions(Priors(boxes[:1], torch.ones(anchors), levels), logits, boxes)


def literal_proposals(p: Predictions, i: int, settings: ProposalPostProcess, size: Tensor) -> tuple[Tensor, Tensor]:
    """One image, level by level, greedily: the specification's section 1.7."""
    kept_boxes, kept_scores, start = [], [], 0
    for count in p.priors.level_sizes:
        scores = p.logits[i, start : start + count, 0].sigmoid()
        boxes = p.boxes[i, start : start + count]
        order = scores.argsort(descending=True)[: settings.max_per_level]
        boxes, scores = boxes[order].clone(), scores[order]
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, float(size[1]))
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, float(size[0]))
        alive = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        boxes, scores = boxes[alive], scores[alive]
        keep = nms(boxes, scores, settings.nms_threshold)
        kept_boxes.append(boxes[keep])
        kept_scores.append(scores[keep])
        start += count
    boxes, scores = torch.cat(kept_boxes), torch.cat(kept_scores)
    order = scores.argsort(descending=True)[: settings.max_proposals]
    return boxes[order], scores[order]


@pytest.mark.parametrize("form", [ProposalPostProcess, ProposalPostProcessByImage])
@pytest.mark.parametrize(
    "settings",
    [{"max_per_level": 100, "max_proposals": 60}, {"max_per_level": 1000, "max_proposals": 1000, "nms_threshold": 0.5}],
)
def test_proposals_equal_the_literal_form(form: type[ProposalPostProcess], settings: dict[str, Any]) -> None:
    p, sizes = predictions(3), torch.tensor([[96.0, 96.0], [50.0, 96.0], [96.0, 40.0]])
    found = form(**settings)(p, sizes)
    for i in range(3):
        boxes, scores = literal_proposals(p, i, form(**settings), sizes[i])
        torch.testing.assert_close(found.scores[i][found.valid[i]], scores)
        torch.testing.assert_close(found.boxes[i][found.valid[i]], boxes)
    assert not found.boxes[~found.valid].any()


def test_several_calls_of_nms_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    p, sizes = predictions(5), torch.full((5, 2), 96.0)
    alone = ProposalPostProcess()(p, sizes)
    for images in (2, 5):
        monkeypatch.setattr("poise.branches.region._images_per_call", lambda boxes, images=images: images)
        together = ProposalPostProcess()(p, sizes)
        assert torch.equal(alone.boxes, together.boxes)
        assert torch.equal(alone.valid, together.valid)


@pytest.mark.parametrize("form", [ProposalPostProcess, ProposalPostProcessByImage])
def test_proposals_of_invalid_boxes_alone(form: type[ProposalPostProcess]) -> None:
    p = predictions()
    p.boxes[0], p.logits[1] = torch.nan, torch.nan
    found = form(100, 50)(p, torch.full((2, 2), 96.0))
    assert not found.valid.any()
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("form", [ProposalPostProcess, ProposalPostProcessByImage])
def test_anchors_that_are_not_finite_do_not_displace_others(form: type[ProposalPostProcess]) -> None:
    p, sizes = predictions(), torch.full((2, 2), 96.0)
    p.logits[0, :50], p.boxes[1, 10:30, 2] = torch.nan, torch.inf
    found = form(100, 60)(p, sizes)
    assert found.boxes.isfinite().all()
    assert found.valid.sum(1).tolist() == [60, 60]


def test_equal_scores_go_to_the_lowest_index() -> None:
    p = predictions(levels=(400,))
    p.logits.fill_(40.0)  # the sigmoid saturates
    found = ProposalPostProcess(10, 5, nms_threshold=1.0)(p, torch.full((2, 2), 200.0))
    assert torch.equal(found.boxes, p.boxes[:, :5].clamp(min=0))


def test_region_features_equal_roi_align_of_each_level() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 256 // s, 256 // s, generator=generator) for s in (4, 8, 16, 32, 64)]
    boxes = torch.stack([random_boxes(40, 1, 256), random_boxes(40, 2, 256)])
    boxes[0, 0], boxes[1, 3] = 0.0, torch.tensor([0.0, 0.0, 256.0, 256.0])
    align = RegionAlign((4, 8, 16, 32))
    found = align(maps, boxes).unflatten(0, (2, 40))
    for i in range(2):
        for j in range(40):
            x1, y1, x2, y2 = boxes[i, j].tolist()
            level = 0 if x2 == x1 else torch.tensor(((x2 - x1) * (y2 - y1)) ** 0.5 / 56 + 1e-6).log2().floor()
            level = int(min(max(float(level), 0), 3))
            roi = boxes[i, j][None]
            alone = roi_align(maps[level][i : i + 1], [roi], 7, 1 / 4 / 2**level, -1, aligned=True)
            torch.testing.assert_close(found[i, j], alone[0])
    assert set(align.levels(boxes).unique().tolist()) == {0.0, 1.0, 2.0}


def test_region_features_are_equal_with_static_and_dynamic_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading each region from its level, and all regions from all levels: equal features and gradients."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, 256 // s, 256 // s, generator=generator).requires_grad_() for s in (4, 8, 16, 32)]
    boxes = torch.stack([random_boxes(60, 3, 256), random_boxes(60, 4, 256)])
    boxes[0, :3], boxes[1, 5] = 0.0, torch.nan
    weights = torch.randn(120, 4, 7, 7, generator=generator)
    results = []
    for host in (True, False):
        monkeypatch.setattr("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device, host=host: host)
        features = RegionAlign((4, 8, 16, 32))(maps, boxes)
        results.append((features, *torch.autograd.grad((features * weights).sum(), maps)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    nothing = RegionAlign((4, 8, 16, 32))(maps, boxes[:, :0])
    assert nothing.shape == (0, 4, 7, 7)


def test_levels_equal_torchvision() -> None:
    boxes = random_boxes(500, 0, 1500)
    maps = {str(i): torch.zeros(1, 1, 1600 // s, 1600 // s) for i, s in enumerate((4, 8, 16, 32))}
    for i, level in enumerate(maps.values()):
        level.fill_(float(i))
    pool = MultiScaleRoIAlign([str(i) for i in range(4)], 1, -1)
    inside = boxes[(boxes < 1600).all(1)]
    served = pool(maps, [inside], [(1600, 1600)]).flatten()
    assert torch.equal(RegionAlign((4, 8, 16, 32)).levels(inside), served.round())


def test_objects_are_assigned_to_themselves_and_padding_is_ignored() -> None:
    box = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    truth = GroundTruth.collate(
        [{"boxes": box.repeat(3, 1), "labels": torch.tensor([0, 1, 2]), "iscrowd": torch.tensor([0, 0, 1])}], [(96, 96)]
    )
    proposals = Detections(
        torch.cat((box + 1, torch.zeros(2, 4)))[None], torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.int64),
        torch.tensor([[True, False, False]]),
    )  # fmt: skip
    regions = only_usable(add_ground_truth(proposals, truth))
    assignment = assign_regions(MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0), regions, truth)
    assert assignment.positive[0].tolist() == [True, True] + [False] * 6 + [True, False, False]
    assert assignment.ignored[0].tolist() == [False, False] + [True] * 6 + [False, True, True]
    assert assignment.index[0, :2].tolist() == [0, 1]
    assert float(assignment.quality[0, 8]) == pytest.approx(float(pairwise_iou(box + 1, box)))


def model(**options: Any) -> Any:
    torch.manual_seed(0)
    small = {"backbone": "test_resnet", "channels": 16, "hidden": 32, "num_classes": 3, "image_size": SIZE}
    return create_model("libra_faster_rcnn_r18_fpn", **{**small, **options}).train()


def target(*boxes: list[float], crowd: bool = False) -> dict[str, Tensor]:
    n = len(boxes)
    flags = torch.full((n,), int(crowd))
    return {"boxes": torch.tensor(boxes).reshape(n, 4), "labels": torch.arange(n) % 3, "iscrowd": flags}


SOME = target([8.0, 8.0, 56.0, 60.0], [40.0, 30.0, 90.0, 90.0])
NONE = target()


@pytest.mark.parametrize("sampler", ["random", "balanced", "article", "ohem"])
@pytest.mark.parametrize(
    "targets",
    [[SOME, NONE], [NONE, NONE], [target([8.0, 8.0, 56.0, 60.0], crowd=True)] * 2, [target([5.0, 5.0, 5.5, 5.5])] * 2],
    ids=["some", "none", "crowd", "tiny"],
)
def test_losses_are_finite_and_reach_every_parameter(sampler: str, targets: list[dict[str, Tensor]]) -> None:
    network = model(sampler=sampler, regions=4096, proposals=50)  # more than exist
    losses = network.losses(torch.randn(2, 3, SIZE, SIZE), targets)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"}
    torch.stack(list(losses.values())).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_proposals_at_all(deterministic: bool) -> None:
    """With NaN offsets no proposal is valid; the objects alone train the second stage."""
    network = model(deterministic=deterministic)
    head = network.network.branch.proposal.head
    with torch.no_grad():
        head.offsets.bias.fill_(torch.nan)
    for targets in ([SOME, NONE], [NONE, NONE]):
        losses = network.losses(torch.randn(2, 3, SIZE, SIZE), targets)
        assert all(loss.isfinite() for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
    assert network.detect(torch.randn(2, 3, SIZE, SIZE))[0]["scores"].shape == (0,)


def test_ohem_selects_the_highest_losses() -> None:
    network = model(sampler="ohem", regions=16)
    branch: RegionBranch = network.network.branch
    pixels, truth = torch.randn(1, 3, SIZE, SIZE), GroundTruth.collate([SOME], [(SIZE, SIZE)])
    with torch.no_grad():
        maps = network.network.neck(network.network.backbone(pixels))
        output = branch(maps, truth, Progress.final())
        match = output.matches["rcnn"]
        chosen = branch.region.criterion.class_loss(match.predictions, match.assignment, truth)
        _, proposals = branch.proposal(maps, truth, Progress.final(), None)
        regions = only_usable(add_ground_truth(proposals, truth))
        everything = assign_regions(branch.region.assigner, regions, truth)
        loss = branch.region.criterion.class_loss(branch.region.head(maps, regions.boxes), everything, truth)
    hardest = loss[everything.negative].topk(int(match.assignment.negative.sum())).values
    torch.testing.assert_close(chosen[match.assignment.negative].sort(descending=True).values, hardest)


def test_the_generator_alone_determines_the_sample() -> None:
    network = model(regions=16)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    totals = []
    for seed in (1, 1, 2):
        network.network.branch.generator = torch.Generator().manual_seed(seed)
        torch.rand(3)  # torch's own generator moves on
        losses = network.losses(pixels, [SOME, SOME])
        totals.append(float(torch.stack(list(losses.values())).detach().sum()))
    assert totals[0] == totals[1] != totals[2]


def test_restoring_the_random_state_restores_the_sample() -> None:
    network = model(regions=16)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    network.losses(pixels, [SOME, NONE])
    state = torch.get_rng_state()
    first = network.losses(pixels, [SOME, NONE])
    torch.set_rng_state(state)
    for key, loss in network.losses(pixels, [SOME, NONE]).items():
        assert torch.equal(loss, first[key])


def test_options_and_their_refusal() -> None:
    for options in ({"refine": "off"}, {"refine": "none"}, {"refine": "conv"}, {"box_loss": "smooth_l1"}):
        model(**options).losses(torch.randn(1, 3, SIZE, SIZE), [SOME])
    with pytest.raises(ValueError, match="no sampler 'nothing'; there are random, balanced, article, ohem"):
        model(sampler="nothing")
    for option in ("refine", "box_loss"):
        with pytest.raises(ValueError, match=f"{option}='nothing'"):
            model(**{option: "nothing"})


def test_detections_are_decoded_by_the_coder() -> None:
    """A head that predicts one class for all regions: its boxes are the decoded proposals."""
    network = model().eval()
    head = network.network.branch.region.head
    with torch.no_grad():
        head.classes.bias[1] = 20.0
        head.offsets.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.5]).repeat(3))
        head.offsets.weight.zero_()
        pixels = torch.randn(1, 3, SIZE, SIZE)
        proposals = network.network.branch.proposal.predict(
            network.network.neck(network.network.backbone(pixels)), torch.full((1, 2), float(SIZE))
        )
    found = network.detect(pixels)[0]
    coder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    every = coder.decode(proposals.boxes[0], torch.tensor([0.0, 0.0, 0.5, 0.5])).clamp(0, SIZE)
    assert set(found["labels"].tolist()) == {1}
    assert float((found["boxes"][:, None] - every).abs().amax(2).amin(1).max()) < 1e-3


def test_fast_rcnn_on_proposals_of_faster_rcnn_equals_its_second_stage() -> None:
    faster = model(sampler="ohem").network
    small = {"backbone": "test_resnet", "channels": 16, "hidden": 32}
    network = create_model("fast_rcnn_r18_fpn", 3, sampler="ohem", box_loss="balanced_l1", **small).network.train()
    network.backbone.load_state_dict(faster.backbone.state_dict())
    faster.neck = faster.neck[0]
    network.neck.load_state_dict(faster.neck.state_dict())
    network.branch.load_state_dict(faster.branch.region.state_dict())
    truth = GroundTruth.collate([SOME, NONE], [(SIZE, SIZE)] * 2)
    batch = Batch(torch.randn(2, 3, SIZE, SIZE), truth, torch.arange(2))
    with torch.no_grad():
        maps = faster.neck(faster.backbone(batch.pixels))
        _, proposals = faster.branch.proposal(maps, truth, Progress(), None)
        expected = faster(batch, Progress()).losses
        boxes = [image[valid] for image, valid in zip(proposals.boxes, proposals.valid, strict=True)]
        found = network(replace(batch, proposals=proposals_from_boxes(boxes)), Progress()).losses
    assert set(found) == {"loss_cls", "loss_bbox"}
    for key, loss in found.items():
        torch.testing.assert_close(loss, expected[key])


CROWD = target([8.0, 8.0, 56.0, 60.0], crowd=True)
BOXES = {
    "none": torch.zeros(0, 4),
    "not finite": torch.tensor([[torch.nan, 1.0, 5.0, 5.0], [0.0, 0.0, torch.inf, 5.0]]),
    "without area": torch.tensor([[5.0, 5.0, 5.0, 9.0], [9.0, 9.0, 4.0, 4.0]]),
    "far from every object": torch.tensor([[0.0, 0.0, 6.0, 6.0], [88.0, 0.0, 96.0, 6.0]]),
    "far away and negative": torch.tensor([[-1e9, -1e9, 1e9, 1e9], [-50.0, -50.0, -20.0, -20.0]]),
}


@pytest.mark.parametrize("sampler", ["random", "balanced", "article", "ohem"])
@pytest.mark.parametrize("truth", [SOME, NONE, CROWD], ids=["some", "no objects", "all ignored"])
def test_fast_rcnn_with_invalid_proposals(sampler: str, truth: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    small = {"backbone": "test_resnet", "image_size": SIZE, "channels": 16, "hidden": 32}
    network = create_model("fast_rcnn_r18_fpn", 3, sampler=sampler, **small).train()
    pixels = torch.randn(2, 3, SIZE, SIZE)
    for name, boxes in BOXES.items():
        network.zero_grad()
        losses = network.losses(pixels, [truth, truth], proposals=[boxes, boxes[:0]])
        assert set(losses) == {"loss_cls", "loss_bbox"}
        torch.stack(list(losses.values())).sum().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), (name, key)
        found = network.detect(pixels, proposals=[boxes, boxes[:0]])
        assert found[0]["boxes"].isfinite().all() and len(found[1]["boxes"]) == 0


def test_fast_rcnn_trains_on_given_proposals_and_requires_them() -> None:
    torch.manual_seed(0)
    network = fast_rcnn(3, backbone="test_resnet", channels=16, hidden=64, norm_eval=True).train()
    truth = GroundTruth.collate([SOME, NONE], [(SIZE, SIZE)] * 2)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    near = torch.cat((SOME["boxes"] + 3, random_boxes(20, 0)))
    near[-1, 0] = torch.nan
    proposals = proposals_from_boxes([near, torch.zeros(0, 4)])
    batch = Batch(pixels, truth, torch.arange(2), proposals=proposals)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        total = network(batch, Progress()).total
        total.backward()
        optimizer.step()
        history.append(float(total.detach()))
    assert history[-1] < 0.25 * history[0]
    found = network.eval().predict(pixels, truth.sizes, proposals).unpad()
    assert found[0]["labels"][:2].sort().values.tolist() == [0, 1]
    assert len(found[1]["labels"]) == 0
    with pytest.raises(ValueError, match="has no region proposal network"):
        network(replace(batch, proposals=None), Progress())
