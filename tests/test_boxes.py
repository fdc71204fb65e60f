"""Box geometry against torchvision and against plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision import ops

from poise import boxes


def random(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * 60), 1)


def test_pairwise_overlaps_equal_torchvision() -> None:
    a, b = random(50, 0), random(7, 1)
    torch.testing.assert_close(boxes.pairwise_iou(a[None], b[None])[0], ops.box_iou(a, b))
    torch.testing.assert_close(boxes.giou(a[:, None], b[None]), ops.generalized_box_iou(a, b))


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_overlaps_of_equal_disjoint_and_empty_boxes(name: str) -> None:
    overlap = getattr(boxes, name)
    box = torch.tensor([10.0, 10.0, 30.0, 20.0])
    assert float(overlap(box, box)) == pytest.approx(1, abs=1e-4)
    assert float(overlap(box, box + 100)) <= 0
    empty = torch.tensor([5.0, 5.0, 5.0, 5.0])
    assert overlap(empty, empty).isfinite() and overlap(box, empty).isfinite()


def test_iof_divides_by_the_first() -> None:
    a, b = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]), torch.tensor([[[5.0, 0.0, 100.0, 100.0]]])
    assert float(boxes.pairwise_iof(a, b)) == 0.5


def test_distances_and_formats_round_trip() -> None:
    box, point = random(20, 2), random(20, 3)[:, :2]
    torch.testing.assert_close(boxes.decode_distances(point, boxes.encode_distances(point, box)), box)
    torch.testing.assert_close(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(box)), box)


def test_distance_inside_is_that_to_the_nearest_side() -> None:
    objects = torch.tensor([[[0.0, 0.0, 20.0, 10.0], [6.0, 0.0, 9.0, 9.0]]])
    assert boxes.distance_inside(torch.tensor([[[5.0, 6.0]]])[:, :, None], objects[:, None]).tolist() == [[[4.0, -1.0]]]


@pytest.mark.parametrize("std", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_delta_coder_round_trips_and_limits_growth(std: tuple[float, float, float, float]) -> None:
    coder, anchors, objects = boxes.DeltaCoder(std), random(30, 4), random(30, 5)
    torch.testing.assert_close(coder.decode(anchors, coder.encode(anchors, objects)), objects, rtol=1e-4, atol=1e-3)
    huge = coder.decode(anchors, torch.full((30, 4), 1e4))
    width = (anchors[:, 2] - anchors[:, 0]) * math.exp(coder.max_log_ratio)
    torch.testing.assert_close(huge[:, 2] - huge[:, 0], width, rtol=1e-3, atol=1.0)
    assert coder.encode(anchors, torch.zeros(30, 4)).isfinite().all()


def test_delta_coder_by_hand() -> None:
    deltas = boxes.DeltaCoder().encode(torch.tensor([0.0, 0.0, 10.0, 20.0]), torch.tensor([5.0, 5.0, 25.0, 15.0]))
    assert deltas.tolist() == pytest.approx([1.0, 0.0, math.log(2), math.log(0.5)])


def test_centerness_by_hand() -> None:
    box = torch.tensor([0.0, 0.0, 10.0, 10.0])
    centers = torch.tensor([[5.0, 5.0], [2.0, 5.0], [-1.0, 5.0]])
    assert boxes.centerness(centers, box).tolist() == pytest.approx([1.0, math.sqrt(2 / 8), 0.0])


def test_clip() -> None:
    found = boxes.clip(torch.tensor([[[-5.0, -5.0, 50.0, 50.0]]]), torch.tensor([[20.0, 30.0]]))
    assert found.tolist() == [[[0.0, 0.0, 30.0, 20.0]]]
