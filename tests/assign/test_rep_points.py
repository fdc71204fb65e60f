"""RepPoints' assigners against the article, written out with loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.scenes import POINTS, STRIDES, predictions_of, truth_of
from torch import Tensor

from poise.assign import MaxIoU
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.nn.layers import point_grid
from poise.structures import GroundTruth, RefinedPredictions


def scene(counts: list[int], seed: int) -> tuple[RefinedPredictions, GroundTruth]:
    predictions = predictions_of(RefinedPredictions, len(counts), seed, POINTS)
    assert isinstance(predictions, RefinedPredictions)
    return predictions, truth_of(counts, seed)


def level_of(width: float, height: float, scale: float) -> int:
    exponent = math.floor((math.log2(width / scale) + math.log2(height / scale)) / 2)
    return 2 ** min(max(exponent, int(math.log2(min(STRIDES)))), int(math.log2(max(STRIDES))))


def claimed(priors: Tensor, strides: Tensor, boxes: Tensor, scale: float) -> list[int]:
    """Object of each point, -1 for none: objects come one after the other and take points from farther ones."""
    owner, nearest = [-1] * len(strides), [math.inf] * len(strides)
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        level = level_of(x2 - x1, y2 - y1, scale)
        best, least = -1, math.inf
        for point, ((x, y), stride) in enumerate(zip(priors.tolist(), strides.tolist(), strict=True)):
            distance = math.hypot((x - (x1 + x2) / 2) / (x2 - x1), (y - (y1 + y2) / 2) / (y2 - y1))
            if stride == level and distance < least:
                best, least = point, distance
        if least < nearest[best]:
            owner[best], nearest[best] = number, least
    return owner


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("count", [1, 8, 60])
def test_nearest_point_as_written_out(count: int, scale: float) -> None:
    predictions, truth = scene([count], count)
    found = NearestPoint(scale)(predictions, truth)
    expected = claimed(predictions.priors.centers[0], predictions.priors.strides, truth.boxes[0, :count], scale)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == expected
    levels = {float(stride) for stride in predictions.priors.strides[found.positive[0]]}
    assert count < 60 or len(levels) > 1, "the scene must reach more than one level"
    assert count < 60 or int(found.positive.sum()) < count, "the scene must have points that several objects claim"


def test_a_contested_point_goes_to_the_nearer_object_and_the_other_goes_without() -> None:
    boxes = torch.tensor([[0.0, 0.0, 31.0, 31.0], [0.0, 0.0, 33.0, 33.0]])  # a point of stride 8 lies at (16, 16)
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([0, 1])}], [(64, 64)])
    priors = point_grid((8,), 0.0)([torch.zeros(1, 1, 8, 8)])
    found = NearestPoint()(RefinedPredictions(priors, torch.zeros(1, 64, 2), priors.boxes, priors.boxes), truth)
    assert found.positive[0].nonzero().tolist() == [[2 * 8 + 2]]
    assert int(found.index[0, 18]) == 1  # half a pixel of 33 is less than half a pixel of 31


def test_points_beyond_the_padding_are_ignored() -> None:
    predictions, truth = scene([12, 12], 5)
    narrow = replace(truth, sizes=torch.tensor([[32.0, 32.0], [64.0, 96.0]]))
    outside = ~predictions.priors.within(narrow.padded_sizes(32))
    for assigner in (NearestPoint(), FirstBoxOverlap(MaxIoU(0.3, 0.2))):
        found = assigner(predictions, narrow)
        assert torch.equal(found.ignored & outside, outside)
        assert not (found.positive & outside).any() and found.positive.any()


def test_overlap_of_first_boxes_is_max_iou_with_these_as_anchors() -> None:
    predictions, truth = scene([6, 20], 7)
    found = FirstBoxOverlap(MaxIoU(0.4, 0.3, 0.0))(predictions, truth)
    anchors = replace(predictions.priors, boxes=predictions.initial_boxes)
    expected = MaxIoU(0.4, 0.3, 0.0, divisor=0)(replace(predictions, priors=anchors), truth)
    assert found.positive.any() and found.ignored.any()
    assert torch.equal(found.positive, expected.positive) and torch.equal(found.ignored, expected.ignored)
    assert torch.equal(found.index, expected.index)


def test_a_first_box_that_is_not_finite_loses_the_match_and_nothing_else() -> None:
    predictions, truth = scene([6], 8)
    plain = FirstBoxOverlap(MaxIoU(0.3, 0.2))(predictions, truth)
    point = int(plain.positive[0].int().argmax())
    broken = predictions.initial_boxes.clone()
    broken[0, point, 1], broken[0, -1] = torch.nan, torch.inf
    found = FirstBoxOverlap(MaxIoU(0.3, 0.2))(replace(predictions, initial_boxes=broken), truth)
    assert not found.positive[0, point] and found.positive.any()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="NearestPoint"):
        NearestPoint(0.0)
