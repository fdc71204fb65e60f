"""Static assigners against the originals: the same object for every prior, overlaps within 1e-5."""

from __future__ import annotations

import pytest
import torch
from support.parity import golden
from torch import Tensor

from poise.assign import ATSS, MaxIoU
from poise.assign.sim_ota import SimOTA
from poise.assign.task_aligned import TaskAligned
from poise.boxes import iou
from poise.protocols import Assigner
from poise.structures import GroundTruth, Predictions, Priors

NUMBERS = golden("assigners")
LEVELS = tuple(int(count) for count in NUMBERS["num_level_priors"])
STRIDES = NUMBERS["points_offset_half"][:, 2]


def static(boxes: Tensor, anchors_a_cell: int = 1) -> Predictions:
    levels = tuple(size * anchors_a_cell for size in LEVELS)
    priors = Priors(boxes[None], STRIDES.repeat_interleave(anchors_a_cell), levels)
    return Predictions(priors, torch.zeros(1, len(boxes), 12), boxes[None])


def truth_of(scene: int) -> GroundTruth:
    target = {"boxes": NUMBERS[f"s{scene}_gt_boxes"], "labels": NUMBERS[f"s{scene}_gt_labels"]}
    return GroundTruth.collate([target], [(256, 320)])


def compare(name: str, scene: int, assigner: Assigner, predictions: Predictions) -> None:
    found = assigner(predictions, truth_of(scene))
    code = torch.where(found.positive, found.index + 1, torch.where(found.ignored, -1, 0))[0]
    expected = NUMBERS[f"s{scene}_{name}_gt_inds"].long()
    assert torch.equal(code, expected)
    overlaps = NUMBERS[f"s{scene}_{name}_overlaps"]
    torch.testing.assert_close(found.quality[0][expected > 0], overlaps[expected > 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scene", range(8))
def test_atss(scene: int) -> None:
    compare("atss", scene, ATSS(), static(NUMBERS["anchors"]))


@pytest.mark.parametrize("scene", range(8))
@pytest.mark.parametrize(
    "name, assigner", [("max_iou_retina", MaxIoU(0.5, 0.4, 0.0)), ("max_iou_rpn", MaxIoU(0.7, 0.3, 0.3))]
)
def test_max_iou_of_anchors(name: str, assigner: MaxIoU, scene: int) -> None:
    compare(name, scene, assigner, static(NUMBERS["retina_anchors"], 9))


@pytest.mark.parametrize("scene", range(8))
def test_max_iou_of_proposals(scene: int) -> None:
    assigner = MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0)
    compare("max_iou_rcnn", scene, assigner, static(NUMBERS[f"s{scene}_pred_boxes"]))


def predicted(scene: int, prior_name: str) -> Predictions:
    boxes = NUMBERS[prior_name]
    if prior_name.startswith("points"):
        center, stride = boxes[:, :2], boxes[:, 2:3]
        boxes = torch.cat((center - stride / 2, center + stride / 2), 1)
    priors = Priors(boxes[None], STRIDES, LEVELS)
    return Predictions(priors, NUMBERS[f"s{scene}_pred_logits"][None], NUMBERS[f"s{scene}_pred_boxes"][None])


@pytest.mark.parametrize("scene", range(8))
def test_sim_ota(scene: int) -> None:
    compare("sim_ota", scene, SimOTA(), predicted(scene, "points_offset_zero"))


@pytest.mark.parametrize("scene", range(8))
def test_task_aligned(scene: int) -> None:
    predictions, truth = predicted(scene, "anchors"), truth_of(scene)
    found = TaskAligned()(predictions, truth)
    expected = NUMBERS[f"s{scene}_task_aligned_gt_inds"].long()
    assert torch.equal(torch.where(found.positive, found.index + 1, 0)[0], expected)
    positive = expected > 0
    own = iou(predictions.boxes, found.boxes(truth))[0]
    torch.testing.assert_close(own[positive], NUMBERS[f"s{scene}_task_aligned_overlaps"][positive], atol=1e-5, rtol=0)
    metric = NUMBERS[f"s{scene}_task_aligned_metric"]
    for g in range(int(expected.max())):  # the normalisation of TOOD's head, object by object
        mask = expected == g + 1
        if mask.any():
            aligned = metric[mask] / (metric[mask].max() + 1e-7) * own[mask].max()
            torch.testing.assert_close(found.quality[0][mask], aligned, atol=1e-5, rtol=1e-5)
