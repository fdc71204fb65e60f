"""OTA against a slow reference written from the specification, pair by pair in float64."""

from __future__ import annotations

import math

import pytest
import torch
from support.scenes import CLASSES, HEIGHT, WIDTH, hard_truth, predictions_of, truth_of
from torch import Tensor
from torchvision.ops import box_iou, sigmoid_focal_loss

from poise.assign import OTA
from poise.assign.sinkhorn import Routes, Transport
from poise.nn.layers import point_grid
from poise.pairwise import Objects
from poise.pairwise.stored_pairs import DensePairs
from poise.structures import GroundTruth, JointPredictions, Predictions

GRID = point_grid((8, 16, 32), 0.0)


def slow(predictions: Predictions, truth: GroundTruth, rule: OTA) -> tuple[list[int], list[float]]:
    """Object of every prior (-1: background), and the margin of the winner's share over the next (a logarithm)."""
    objects, labels = truth.boxes[0][truth.valid[0]].double(), truth.labels[0][truth.valid[0]].tolist()
    logits, boxes = predictions.logits[0].double(), predictions.boxes[0].double()
    centers, strides = predictions.priors.centers[0].tolist(), predictions.priors.strides.tolist()
    empty = torch.zeros(CLASSES, dtype=torch.float64)
    focal = {"alpha": rule.alpha, "gamma": rule.gamma, "reduction": "sum"}
    overlap = box_iou(objects, boxes)
    rows: list[list[float]] = []
    supply: list[float] = []
    for g, label in enumerate(labels):
        x1, y1, x2, y2 = objects[g].tolist()
        target = empty.clone()
        target[label] = 1
        row, admitted = [], []
        for n, (x, y) in enumerate(centers):
            reach, cx, cy = rule.radius * strides[n], (x1 + x2) / 2, (y1 + y2) / 2
            inside = min(x - x1, y - y1, x2 - x, y2 - y) > rule.inside
            near = [max(cx - reach, x1), max(cy - reach, y1), min(cx + reach, x2), min(cy + reach, y2)]
            fits = inside and min(x - near[0], y - near[1], near[2] - x, near[3] - y) > 0
            value = float(overlap[g, n])
            admitted.append(value if fits else 0.0)
            cost = float(sigmoid_focal_loss(logits[n], target, **focal))
            row.append(cost - rule.iou_weight * math.log(max(value, 2**-23)) + (0 if fits else 1e6))
        rows.append(row)
        supply.append(max(1, int(sum(sorted(admitted, reverse=True)[: rule.topk]))))
    rows.append([float(sigmoid_focal_loss(logit, empty, **focal)) for logit in logits])
    supply.append(len(centers) - sum(supply))
    return plan(torch.tensor(rows, dtype=torch.float64), torch.tensor(supply, dtype=torch.float64), rule)


def plan(cost: Tensor, supply: Tensor, rule: OTA) -> tuple[list[int], list[float]]:
    eps = rule.temperature
    u, v = torch.ones(len(cost)).double(), torch.ones(cost.shape[1]).double()
    for _ in range(rule.iterations):
        v = v + eps * (math.log(1 + 1e-8) - ((-cost + u[:, None] + v) / eps).logsumexp(0))
        u = u + eps * ((supply + 1e-8).log() - ((-cost + u[:, None] + v) / eps).logsumexp(1))
    share = (-cost + u[:, None] + v) / eps
    share = share - share.amax(1, keepdim=True)
    best = share.topk(min(2, len(share)), 0)
    margin = best.values[0] - best.values[-1] if len(share) > 1 else torch.ones(cost.shape[1])
    owner = best.indices[0]
    return torch.where(owner == len(cost) - 1, -1, owner).tolist(), margin.tolist()


@pytest.mark.parametrize("rule", [OTA(), OTA(8, 1.0, 3.0, 0.5, 1.5, 0.3, 20)])
@pytest.mark.parametrize("count", [0, 1, 4, 20])
def test_equals_a_literal_reference(count: int, rule: OTA) -> None:
    predictions, truth = predictions_of(JointPredictions, 1, count, GRID), truth_of([count], count + 1)
    found = rule(predictions, truth)
    owner, margin = slow(predictions, truth, rule)
    found_objects = torch.where(found.positive, found.index, -1)[0].tolist()
    undecided = sum(m < 1e-3 for m in margin)
    assert [o for o, m in zip(found_objects, margin, strict=True) if m >= 1e-3] == [
        o for o, m in zip(owner, margin, strict=True) if m >= 1e-3
    ]
    assert undecided <= 2 and (count == 0) == (max(owner) < 0)
    own = box_iou(predictions.boxes[0], truth.boxes[0])
    for n in found.positive[0].nonzero().flatten().tolist():
        assert float(found.quality[0, n]) == pytest.approx(float(own[n, found.index[0, n]]), abs=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_hard_scenes(seed: int) -> None:
    """But for equal objects, whose ties the literal reference leaves open."""
    predictions, truth = predictions_of(JointPredictions, 1, seed, GRID), hard_truth(seed)
    truth.valid[0, 36:] = False
    found = OTA()(predictions, truth)
    owner, margin = slow(predictions, truth, OTA())
    found_objects = torch.where(found.positive, found.index, -1)[0].tolist()
    wrong = [n for n, m in enumerate(margin) if m >= 1e-3 and found_objects[n] != owner[n]]
    assert not wrong and sum(m < 1e-3 for m in margin) <= 4


def test_objects_without_a_prior_take_the_cheapest_anywhere() -> None:
    predictions = predictions_of(JointPredictions, 1, 3, GRID)
    boxes = torch.tensor([[17.0, 17.0, 20.0, 20.0], [30.0, 30.0, 90.0, 90.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([1, 3])}], [(HEIGHT, WIDTH)])
    found = OTA()(predictions, truth)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == slow(predictions, truth, OTA())[0]
    assert (found.positive & (found.index == 0)).any()


def test_more_supply_than_priors_stays_finite() -> None:
    """Twelve priors, sixteen objects: the background supplies nothing."""
    priors = point_grid((8,), 0.5)([torch.zeros(1, 1, 3, 4)])
    predictions = Predictions(priors, torch.zeros(1, 12, CLASSES), priors.boxes)
    target = {"boxes": torch.tensor([[0.0, 0.0, 32.0, 24.0]]).repeat(16, 1), "labels": torch.arange(16) % CLASSES}
    found = OTA()(predictions, GroundTruth.collate([target], [(24, 32)]))
    assert found.positive.any() and found.quality.isfinite().all()


def test_the_plan_delivers_what_is_wanted() -> None:
    """After enough iterations every prior gets one unit and every object has sent its supply."""
    generator = torch.Generator().manual_seed(0)
    cost, background = torch.rand(1, 3, 40, generator=generator) * 5, torch.rand(1, 40, generator=generator) * 5
    supply = torch.tensor([[2.0, 5.0, 1.0]])
    boxes, labels = torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int64)
    routes = []
    for part in (slice(0, 2), slice(2, 3)):
        pairs = DensePairs(torch.ones_like(cost[:, part], dtype=torch.bool))
        objects = Objects(boxes[:, part], labels[:, part], labels[:, part] == 0, part)
        routes.append(Routes(objects, pairs, cost[:, part]))
    problem = Transport(routes, background, supply, torch.tensor([32.0]))
    price = problem.prices(300)
    object_potential = supply.log() - (price[:, None] - cost).logsumexp(2)
    background_potential = torch.tensor(32.0).log() - (price - background).logsumexp(1)
    sent = (object_potential[..., None] + price[:, None] - cost).exp()
    torch.testing.assert_close(sent.sum(2), supply)
    everything = sent.sum(1) + (background_potential + price - background).exp()
    torch.testing.assert_close(everything, torch.ones(1, 40), atol=1e-3, rtol=0)
