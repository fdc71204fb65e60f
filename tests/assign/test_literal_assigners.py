"""Static assigners against slow references written from the spec, one object and one prior at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from support.scenes import HEIGHT, STRIDES, WIDTH, hard_truth, predictions_of, truth_of
from support.similarities import grown, literal

from poise.assign import ATSS, CenterRegion, MaxIoU
from poise.nn.layers import AnchorGrid, point_grid, square_anchors
from poise.pairwise import nearest_per_level
from poise.similarities import GCD, NWD, SimD
from poise.structures import Assignment, GroundTruth, Predictions

Box = list[float]


def overlap(a: Box, b: Box) -> float:
    """In float32, as ties in IoU must be the same ties."""
    a, b = np.float32(a), np.float32(b)  # type: ignore[assignment]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / max(union, np.float32(1e-6)))


def slow_atss(
    anchors: list[Box],
    levels: tuple[int, ...],
    objects: list[Box],
    topk: int,
    similar: Callable[[Box, Box], float] = overlap,
    floor: float = 0.0,
    cover: bool = False,
) -> list[int]:
    best: list[tuple[float, int]] = [(-1.0, -1)] * len(anchors)
    seen: list[list[tuple[float, int]]] = []
    for g, box in enumerate(objects):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates: list[int] = []
        start = 0
        for size in levels:
            near = sorted(
                range(start, start + size),
                key=lambda n: (
                    math.dist(middle, ((anchors[n][0] + anchors[n][2]) / 2, (anchors[n][1] + anchors[n][3]) / 2)),
                    n,
                ),
            )
            candidates += near[:topk]
            start += size
        overlaps = [similar(anchors[n], box) for n in candidates]
        threshold = mean(overlaps) + stdev(overlaps)
        whole = grown(box, floor) if floor else box
        for n, value in zip(candidates, overlaps, strict=True):
            x, y = (anchors[n][0] + anchors[n][2]) / 2, (anchors[n][1] + anchors[n][3]) / 2
            inside = min(x - whole[0], y - whole[1], whole[2] - x, whole[3] - y) > 0.01
            if inside and value >= threshold and value > best[n][0]:
                best[n] = (value, g)
        seen.append(list(zip(overlaps, candidates, strict=True)))
    owners = [g for _, g in best]
    if cover:
        wanted: dict[int, tuple[float, int]] = {}
        for g, pairs in enumerate(seen):
            free = [(value, -k) for k, (value, n) in enumerate(pairs) if owners[n] < 0 and value > 0]
            if g not in owners and free:
                value, k = max(free)
                n = pairs[-k][1]
                wanted[n] = max(wanted.get(n, (0.0, 0)), (value, -g))
        for n, (_, g) in wanted.items():
            owners[n] = -g
    return owners


def slow_fcos(
    predictions: Predictions, objects: list[Box], radius: float, limits: tuple[float, ...], floor: float = 0.0
) -> list[int]:
    priors, result = predictions.priors, []
    level_of = [level for level, size in enumerate(priors.level_sizes) for _ in range(size)]
    bounds = [-1.0, *limits[: len(priors.level_sizes) - 1], 1e8]
    for n, (x, y) in enumerate(priors.centers[0].tolist()):
        stride, best = float(priors.strides[n]), (math.inf, -1)
        for g, (x1, y1, x2, y2) in enumerate(objects):
            cx, cy, reach = (x1 + x2) / 2, (y1 + y2) / 2, radius * stride
            whole = grown([x1, y1, x2, y2], floor) if floor else [x1, y1, x2, y2]
            near = [max(cx - reach, whole[0]), max(cy - reach, whole[1])]
            near += [min(cx + reach, whole[2]), min(cy + reach, whole[3])]
            region = near if radius else whole
            inside = min(x - region[0], y - region[1], region[2] - x, region[3] - y) > 0
            farthest = max(x - x1, y - y1, x2 - x, y2 - y)
            fits = bounds[level_of[n]] <= farthest <= bounds[level_of[n] + 1]
            if inside and fits and (x2 - x1) * (y2 - y1) < best[0]:
                best = ((x2 - x1) * (y2 - y1), g)
        result.append(best[1])
    return result


def slow_max_iou(anchors: list[Box], objects: list[Box], rule: MaxIoU) -> list[int]:
    """-2 ignored, -1 negative, else the object."""
    similar = overlap if rule.similarity is None else literal(rule.similarity)
    table = [[similar(anchor, box) for box in objects] for anchor in anchors]
    result = []
    for row in table:
        best = max(row, default=0.0)
        result.append(row.index(best) if row and best >= rule.positive else (-1 if best < rule.negative else -2))
    for g in range(len(objects)):
        highest = max(row[g] for row in table)
        for n, row in enumerate(table):
            if rule.low_quality and highest >= rule.least and highest > 0 and row[g] == highest:
                result[n] = g
    return result


def codes(assignment: Assignment, i: int) -> list[int]:
    return torch.where(assignment.positive, assignment.index, torch.where(assignment.ignored, -2, -1))[i].tolist()


def objects_of(truth: GroundTruth, i: int) -> list[Box]:
    return truth.boxes[i][truth.valid[i]].tolist()


@pytest.mark.parametrize("seed", range(6))
def test_atss(seed: int) -> None:
    truth = truth_of([0, 1, 12], seed)
    predictions = predictions_of(Predictions, 3, seed, square_anchors(STRIDES, 4.0))
    found = ATSS(topk=5)(predictions, truth)
    for i in range(3):
        wanted = slow_atss(
            predictions.priors.boxes[0].tolist(), predictions.priors.level_sizes, objects_of(truth, i), 5
        )
        assert codes(found, i) == wanted


@pytest.mark.parametrize("cover", [False, True])
@pytest.mark.parametrize("floor", [0.0, 16.0])
def test_atss_for_small_objects(floor: float, cover: bool) -> None:
    truth = truth_of([0, 1, 30], 3)
    boxes = truth.boxes.clone()
    boxes[..., 2:] = boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]).clamp(max=9)  # most contain no center
    truth = replace(truth, boxes=boxes)
    predictions = predictions_of(Predictions, 3, 3, square_anchors(STRIDES, 4.0))
    found, priors = ATSS(topk=5, floor=floor, cover=cover)(predictions, truth), predictions.priors
    wanted = [
        slow_atss(priors.boxes[0].tolist(), priors.level_sizes, objects_of(truth, i), 5, floor=floor, cover=cover)
        for i in range(3)
    ]
    assert [codes(found, i) for i in range(3)] == wanted
    without = [set(range(int(truth.valid[i].sum()))) - set(wanted[i]) for i in range(3)]
    assert bool(without[2]) == (not cover)


@pytest.mark.parametrize("similarity", [NWD(20.0), SimD(), GCD()], ids=str)
def test_atss_with_other_similarities(similarity: NWD | SimD | GCD) -> None:
    truth = truth_of([1, 12], 7)
    predictions = predictions_of(Predictions, 2, 7, square_anchors(STRIDES, 4.0))
    found, priors = ATSS(topk=5, similarity=similarity)(predictions, truth), predictions.priors
    for i in range(2):
        boxes, objects = priors.boxes[0].tolist(), objects_of(truth, i)
        assert codes(found, i) == slow_atss(boxes, priors.level_sizes, objects, 5, literal(similarity))


@pytest.mark.parametrize("floor", [0.0, 24.0])
@pytest.mark.parametrize("radius", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_center_region(seed: int, radius: float, floor: float) -> None:
    truth = truth_of([0, 3, 15], seed)
    predictions = predictions_of(Predictions, 3, seed, point_grid(STRIDES, 0.5))
    found = CenterRegion(radius, limits=(24, 60), floor=floor)(predictions, truth)
    for i in range(3):
        assert codes(found, i) == slow_fcos(predictions, objects_of(truth, i), radius, (24, 60), floor)
    if floor:
        assert found.positive.sum() > CenterRegion(radius, limits=(24, 60))(predictions, truth).positive.sum()


@pytest.mark.parametrize(
    "rule",
    [
        MaxIoU(0.5, 0.4, 0.0),
        MaxIoU(0.7, 0.3, 0.3),
        MaxIoU(0.5, 0.5, 0.5, low_quality=False),
        MaxIoU(0.6, 0.4, similarity=NWD(20.0)),
        MaxIoU(0.4, 0.3, similarity=SimD()),
        MaxIoU(0.5, 0.4, similarity=GCD()),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_max_iou(seed: int, rule: MaxIoU) -> None:
    truth = truth_of([0, 2, 12], seed)
    predictions = predictions_of(Predictions, 3, seed, AnchorGrid(STRIDES, (2.0, 4.0), (0.5, 2.0)))
    found = rule(predictions, truth)
    for i in range(3):
        wanted = slow_max_iou(predictions.priors.boxes[0].tolist(), objects_of(truth, i), rule)
        assert codes(found, i) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_hard_scenes(seed: int) -> None:
    """Tiny, huge, equal and overlapping objects, at the border and between the priors."""
    truth = hard_truth(seed)
    objects = objects_of(truth, 0)
    anchors = predictions_of(Predictions, 1, seed, square_anchors(STRIDES, 4.0))
    boxes = anchors.priors.boxes[0].tolist()
    rule = MaxIoU(0.4, 0.3, 0.0)
    assert codes(rule(anchors, truth), 0) == slow_max_iou(boxes, objects, rule)
    assert codes(ATSS(topk=5)(anchors, truth), 0) == slow_atss(boxes, anchors.priors.level_sizes, objects, 5)
    centers = predictions_of(Predictions, 1, seed, point_grid(STRIDES, 0.5))
    found = CenterRegion(1.5, limits=(24, 60))(centers, truth)
    assert codes(found, 0) == slow_fcos(centers, objects, 1.5, (24, 60))


@pytest.mark.parametrize("topk", [1, 2, 3])
def test_atss_ties_go_to_the_lowest_index(topk: int) -> None:
    """An object centered between four anchors is equally near to all of them: the upper row first, from the left."""
    target = {"boxes": torch.tensor([[40.0, 40.0, 64.0, 64.0]]), "labels": torch.zeros(1, dtype=torch.int64)}
    other = {"boxes": torch.tensor([[3.0, 5.0, 31.0, 40.0]]), "labels": torch.zeros(1, dtype=torch.int64)}
    truth = GroundTruth.collate([other, target], [(HEIGHT, WIDTH)] * 2)
    predictions = predictions_of(Predictions, 2, 0, square_anchors(STRIDES, 4.0))
    priors = predictions.priors
    centers = {tuple(center): n for n, center in enumerate(priors.centers[0, : priors.level_sizes[0]].tolist())}
    around = [centers[x, y] for y in (48.0, 56.0) for x in (48.0, 56.0)]
    candidates = nearest_per_level(priors, truth.boxes, topk)[0][1, 0]
    assert sorted(candidates[:topk].tolist()) == around[:topk]
    found = ATSS(topk)(predictions, truth)
    wanted = slow_atss(priors.boxes[0].tolist(), priors.level_sizes, objects_of(truth, 1), topk)
    assert codes(found, 1) == wanted


def test_max_iou_ignores_crowd_regions_when_asked() -> None:
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0]])
    target = {"boxes": boxes, "labels": torch.zeros(1, dtype=torch.int64), "iscrowd": torch.ones(1)}
    truth = GroundTruth.collate([target], [(HEIGHT, WIDTH)])
    predictions = predictions_of(Predictions, 1, 0, AnchorGrid(STRIDES, (2.0,)))
    plain, careful = MaxIoU()(predictions, truth), MaxIoU(ignore_iof=0.5)(predictions, truth)
    assert not plain.positive.any() and not plain.ignored.any()
    assert careful.ignored.any() and not careful.positive.any()
