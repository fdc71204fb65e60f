"""DW as its article has it, and its remedy for small objects, against literal loops in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.scenes import POINTS, predictions_of, truth_of

from poise.assign.center_priors import DistanceCenterPrior, GaussianCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import BySize, DualWeighting, LinearIoU, overlap_power
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.models import create_model
from poise.structures import GroundTruth, Predictions

ARTICLE = DualWeighting(
    mu_total=5.0, location=overlap_power, negative_probability=LinearIoU(), bag_bounds_negatives=True
)


@dataclass(frozen=True)
class Point:
    """What the article knows of an anchor with respect to an object."""

    number: int
    level: int
    distance: float  # from the object's center, in strides
    score: float
    iou: float


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both, 1e-6)


def points_inside(predictions: Predictions, box: list[float], label: int) -> list[Point]:
    found, level, left = [], 0, list(predictions.priors.level_sizes)
    for n, (x, y) in enumerate(predictions.priors.centers[0].double().tolist()):
        while left[level] == 0:
            level += 1
        left[level] -= 1
        if min(x - box[0], y - box[1], box[2] - x, box[3] - y) <= 0:
            continue
        stride = float(predictions.priors.strides[n])
        distance = math.hypot(x - (box[0] + box[2]) / 2, y - (box[1] + box[3]) / 2) / stride
        score = float(predictions.scores()[0, n, label])
        found.append(Point(n, level, distance, score, iou(predictions.boxes[0, n].double().tolist(), box)))
    return found


def soft(points: list[Point], everything: list[Point]) -> dict[int, float]:
    return {p.number: math.exp(-(p.distance**2) / (2 * 1.11**2)) for p in points}


def within(points: list[Point], everything: list[Point]) -> dict[int, float]:
    return {p.number: 1.0 for p in points if p.distance < 1.5}


def nearest(points: list[Point], everything: list[Point]) -> dict[int, float]:
    """The 4 nearest of each level, of those inside."""
    chosen = set()
    for level in {p.level for p in everything}:
        order = sorted((p for p in everything if p.level == level), key=lambda p: (p.distance, p.number))
        chosen |= {p.number for p in order[:4]}
    return {p.number: 1.0 for p in points if p.number in chosen}


def literal(
    predictions: Predictions, truth: GroundTruth, bag: Callable[..., dict[int, float]], of_size: Callable[..., float]
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    """Positive weights by (anchor, object), probabilities of a negative by (anchor, class)."""
    positive, negative = {}, {}
    for g in range(int(truth.valid[0].sum())):
        box, label = truth.boxes[0, g].double().tolist(), int(truth.labels[0, g])
        size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        beta, mu, gamma = (of_size(name, size) for name in ("beta", "mu", "gamma"))
        inside = points_inside(predictions, box, label)
        everything = points_inside(predictions, [-1e4, -1e4, 1e4, 1e4], label)
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        xy, strides = predictions.priors.centers[0].double().tolist(), predictions.priors.strides.tolist()
        everything = [replace(p, distance=math.dist(xy[p.number], center) / strides[p.number]) for p in everything]
        prior = bag(inside, everything)
        members = [p for p in inside if p.number in prior]
        t = {p.number: p.score * p.iou**beta for p in members}
        weight = {n: math.exp(mu * t[n]) * t[n] * prior[n] for n in t}
        total = max(sum(weight.values()), 1e-12)
        for p in members:
            positive[p.number, g] = weight[p.number] / total
            k = 1 / (0.95**gamma - 0.5**gamma)
            negative[p.number, label] = min(max(-k * p.iou**gamma + k * 0.95**gamma, 0), 1)
    return positive, negative


def compare(rule: DualWeighting, bag: Callable[..., Any], of_size: Callable[..., float], count: int) -> None:
    predictions, truth = predictions_of(Predictions, 1, count, POINTS), truth_of([count], count + 1)
    near = truth.boxes[0, torch.arange(predictions.boxes.shape[1]) % count] + torch.randn(
        predictions.boxes.shape[1:], generator=torch.Generator().manual_seed(1)
    )
    predictions = replace(predictions, boxes=torch.where(torch.rand(1, len(near), 1) < 0.7, near, predictions.boxes))
    found = rule(predictions, truth)
    positive, negative = literal(predictions, truth, bag, of_size)
    wanted, rest = torch.zeros_like(found.positive), torch.ones_like(found.negative)
    for (n, g), value in positive.items():
        wanted[0, n, g] = value
    for (n, c), value in negative.items():
        rest[0, n, c] = value
    torch.testing.assert_close(found.positive, wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.negative, rest, rtol=1e-3, atol=1e-5)
    assert {(n, c) for n, c in found.inside[0].nonzero().tolist()} == set(negative)
    assert len(positive) > 5 and min(negative.values()) < 0.5


def constant(name: str, size: float) -> float:
    return {"beta": 5.0, "mu": 5.0, "gamma": 2.0}[name]


@pytest.mark.parametrize("count", [1, 6, 30])
@pytest.mark.parametrize(
    ("center_prior", "bag"),
    [(GaussianCenterPrior(), soft), (DistanceCenterPrior(1.5), within), (TopKCenterPrior(4), nearest)],
    ids=["soft", "radius", "topk"],
)
def test_the_article_as_written_out(center_prior: Any, bag: Callable[..., Any], count: int) -> None:
    """Weights that sum to 1, IoU^beta, the line through (0.5, 1) and (0.95, 0), plain negatives outside of the bag."""
    compare(replace(ARTICLE, center_prior=center_prior), bag, constant, count)


@pytest.mark.parametrize("count", [1, 6, 30])
def test_parameters_by_the_size_of_the_object_as_written_out(count: int) -> None:
    def of_size(name: str, size: float) -> float:
        small, large = {"beta": (2.0, 5.0), "mu": (0.0, 6.0), "gamma": (1.0, 3.0)}[name]
        if size <= 32:
            return small
        return large if size >= 96 else small + (large - small) * math.log(size / 32) / math.log(3)

    mu = BySize(0.0, 6.0)
    rule = replace(ARTICLE, beta=BySize(2.0, 5.0), mu=mu, mu_total=mu, negative_probability=LinearIoU(BySize(1.0, 3.0)))
    compare(rule, soft, of_size, count)


def test_a_small_mu_spreads_the_weights_of_small_objects_alone() -> None:
    predictions = predictions_of(Predictions, 1, 0, POINTS)
    boxes = torch.tensor([[[20.0, 20.0, 45.0, 45.0], [2.0, 2.0, 126.0, 94.0]]])
    truth = truth_of([2], 0)
    truth = replace(truth, boxes=torch.cat((boxes, truth.boxes[:, 2:]), 1))
    box = boxes[0, (torch.arange(predictions.boxes.shape[1]) % 2)]
    moved = box + 6 * torch.rand(box.shape, generator=torch.Generator().manual_seed(0))
    logits = torch.full_like(predictions.logits, 2.0)
    predictions = replace(predictions, boxes=moved[None], logits=logits)
    plain = ARTICLE(predictions, truth).positive
    remedy = replace(ARTICLE, mu=BySize(0.0, 5.0), mu_total=BySize(0.0, 5.0))(predictions, truth).positive
    samples = [1 / weight.square().sum(1) for weight in (plain, remedy)]  # the effective number of samples
    assert float(samples[1][0, 0]) > 1.05 * float(samples[0][0, 0])
    assert torch.equal(plain[0, :, 1], remedy[0, :, 1])


def test_one_word_is_the_article() -> None:
    small: dict[str, Any] = {"backbone": "test_resnet", "channels": 16, "depth": 1}
    branch = create_model("dw_r18_fpn", 3, form="article", **small).network.branch
    assert replace(branch.assigner, center_prior=GaussianCenterPrior()) == ARTICLE
    assert branch.criterion.detached and branch.assigner.center_prior is branch.head.center_prior
    tied = create_model("dw_r18_fpn", 3, form="article", mu=8.0, **small).network.branch.assigner
    assert (tied.mu, tied.mu_total) == (8.0, 8.0)
    mixed = create_model(
        "dw_r18_fpn", 3, form="article", mu_total=3.0, location="giou", **small
    ).network.branch.assigner
    assert mixed.mu_total == 3.0 and mixed.location is not overlap_power
    published = create_model("dw_r18_fpn", 3, **small).network.branch
    assert replace(published.assigner, center_prior=GaussianCenterPrior()) == DualWeighting()
    assert not published.criterion.detached


def test_gamma2_by_size_is_the_exponent_of_the_last_object_of_the_class() -> None:
    predictions = predictions_of(Predictions, 1, 0, POINTS)
    truth = truth_of([9], 1)
    rule = replace(ARTICLE, center_prior=DistanceCenterPrior(2.0), return_sizes=True)
    assignment = rule(predictions, truth)
    criterion = DualWeightingCriterion(gamma=BySize(1.0, 3.0))
    weights = criterion.weights(predictions, assignment, truth).negative[0]
    divisor = max(float((1 - assignment.negative.double()).sum()), 1.0)
    expected = (predictions.scores()[0].double() ** 3 * assignment.negative[0]).tolist()
    for box, label in zip(truth.boxes[0, :9].double().tolist(), truth.labels[0, :9].tolist(), strict=True):
        size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        gamma = 1.0 if size <= 32 else 3.0 if size >= 96 else 1 + 2 * math.log(size / 32) / math.log(3)
        for point in points_inside(predictions, box, label):
            if point.distance < 2.0:
                probability = float(assignment.negative[0, point.number, label])
                expected[point.number][label] = point.score**gamma * probability
    torch.testing.assert_close(weights, torch.tensor(expected) / divisor)
    with pytest.raises(ValueError, match="return_sizes"):
        criterion.weights(predictions, ARTICLE(predictions, truth), truth)


def test_sizes_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="0 < low < high"):
        BySize(1.0, 2.0, low=96, high=32)
    with pytest.raises(ValueError, match="radius"):
        DistanceCenterPrior(0.0)
    with pytest.raises(ValueError, match="none is negative"):
        DualWeighting(mu=BySize(-1.0, 5.0))
