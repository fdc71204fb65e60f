"""Dynamic soft labels against the originals' results and against a literal reading of the specification."""

from __future__ import annotations

import pytest
import torch
from support.parity import golden
from support.scenes import CLASSES, STRIDES, predictions_of, truth_of
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torchvision.ops import box_iou

from poise.assign import DynamicSoftLabel
from poise.nn.layers import point_grid
from poise.structures import GroundTruth, Predictions, Priors

NANODET, RTMDET = DynamicSoftLabel(), DynamicSoftLabel(distance_beta=3.0)


@pytest.mark.parametrize("scene", range(8))
@pytest.mark.parametrize(("form", "assigner"), [("nanodet", NANODET), ("rtmdet", RTMDET)])
def test_as_the_originals(form: str, assigner: DynamicSoftLabel, scene: int) -> None:
    numbers = golden("assigners")
    x, y, stride = numbers["points_offset_zero"][:, :3].unbind(1)
    boxes = torch.stack((x - stride / 2, y - stride / 2, x + stride / 2, y + stride / 2), 1)
    priors = Priors(boxes[None], stride, tuple(int(count) for count in numbers["num_level_priors"]))
    logits = numbers[f"s{scene}_pred_logits"]
    if form == "nanodet":  # the golden numbers fed that original, which takes logits, with probabilities
        logits = logits.sigmoid()
    truth = GroundTruth.collate(
        [{"boxes": numbers[f"s{scene}_gt_boxes"], "labels": numbers[f"s{scene}_gt_labels"]}], [(256, 320)]
    )
    found = assigner(Predictions(priors, logits[None], numbers[f"s{scene}_pred_boxes"][None]), truth)
    expected = numbers[f"s{scene}_dynamic_soft_label_{form}_gt_inds"].long()
    assert torch.equal(torch.where(found.positive, found.index + 1, 0)[0], expected)
    overlaps = numbers[f"s{scene}_dynamic_soft_label_{form}_overlaps"]
    torch.testing.assert_close(found.quality[0][expected > 0], overlaps[expected > 0], atol=1e-6, rtol=0)


def literal(
    logits: Tensor,
    boxes: Tensor,
    centers: Tensor,
    strides: Tensor,
    objects: Tensor,
    labels: Tensor,
    assigner: DynamicSoftLabel,
) -> tuple[Tensor, Tensor]:
    """Object of every prior (-1: none) and its soft label, one image, one object after the other."""
    owner, quality = torch.full((len(boxes),), -1), torch.zeros(len(boxes))
    low, high = centers[:, None] - objects[:, :2], objects[:, 2:] - centers[:, None]
    valid = (torch.cat((low, high), 2).amin(2) > 0).any(1).nonzero().squeeze(1)
    if not len(valid) or not len(objects):
        return owner, quality
    overlap = box_iou(boxes[valid], objects)
    soft = one_hot(labels, CLASSES)[None] * overlap[..., None]
    z = logits[valid, None].expand(-1, len(objects), -1)
    cost = (binary_cross_entropy_with_logits(z, soft, reduction="none") * (soft - z.sigmoid()).abs() ** 2).sum(2)
    cost = cost - assigner.iou_weight * (overlap + 1e-7).log()
    if assigner.distance_beta is not None:
        middle = (objects[:, :2] + objects[:, 2:]) / 2
        distance = (centers[valid, None] - middle).norm(dim=2) / strides[valid, None]
        cost = cost + assigner.distance_alpha ** (distance - assigner.distance_beta)
    taken = torch.zeros_like(overlap, dtype=torch.bool)
    for g in range(len(objects)):
        best = overlap[:, g].topk(min(assigner.topk, len(valid))).values
        taken[cost[:, g].argsort(stable=True)[: max(1, int(best.sum()))], g] = True
    for row, prior in enumerate(valid.tolist()):
        if taken[row].any():
            g = int(cost[row].argmin()) if taken[row].sum() > 1 else int(taken[row].int().argmax())
            owner[prior], quality[prior] = g, overlap[row, g]
    return owner, quality


@pytest.mark.parametrize("assigner", [NANODET, RTMDET, DynamicSoftLabel(15, 2.0, 4.0, 1.5)])
def test_four_hundred_random_scenes_as_the_literal_reference(assigner: DynamicSoftLabel) -> None:
    outside = 0
    for seed in range(100):
        counts = [seed % 3, 1 + seed % 5, 4 + seed % 9, 20]
        predictions = predictions_of(Predictions, 4, seed, point_grid(STRIDES, 0.0))
        truth = truth_of(counts, 1000 + seed)
        found = assigner(predictions, truth)
        centers = predictions.priors.centers[0]
        for i, count in enumerate(counts):
            objects, labels = truth.boxes[i, :count], truth.labels[i, :count]
            owner, quality = literal(
                predictions.logits[i],
                predictions.boxes[i],
                centers,
                predictions.priors.strides,
                objects,
                labels,
                assigner,
            )
            assert torch.equal(torch.where(found.positive[i], found.index[i], -1), owner)
            torch.testing.assert_close(found.quality[i][owner >= 0], quality[owner >= 0])
            for prior in (owner >= 0).nonzero().squeeze(1).tolist():
                x1, y1, x2, y2 = objects[owner[prior]].tolist()
                x, y = centers[prior].tolist()
                outside += not (x1 < x < x2 and y1 < y < y2)
    assert outside > 20  # as in the original, an object may take a prior outside itself


def test_an_object_without_a_prior_inside_still_gets_one() -> None:
    predictions = predictions_of(Predictions, 1, 3, point_grid(STRIDES, 0.0))
    boxes = torch.tensor([[17.0, 17.0, 20.0, 20.0], [30.0, 30.0, 90.0, 90.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([1, 3])}], [(96, 128)])
    found = NANODET(predictions, truth)
    assert (found.positive & (found.index == 0)).sum() == 1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"topk": 0}, "topk is at least 1"),
        ({"iou_weight": -1.0}, "topk is at least 1"),
        ({"distance_alpha": 1.0, "distance_beta": 3.0}, "must exceed 1"),
        ({"distance_alpha": 2.0}, "has no effect without distance_beta"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DynamicSoftLabel(**wrong)
