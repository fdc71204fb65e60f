"""SimOTA against a slow reference written from the specification, one object after the other."""

from __future__ import annotations

import pytest
import torch
from support.scenes import CLASSES, hard_truth, predictions_of, truth_of
from support.similarities import grown
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, one_hot
from torchvision.ops import box_iou

from poise.assign import SimOTA
from poise.nn.layers import point_grid
from poise.structures import GroundTruth, JointPredictions, Predictions, Priors

GRID = point_grid((8, 16, 32), 0.0)


def slow(predictions: Predictions, truth: GroundTruth, rule: SimOTA) -> list[int]:
    """Object of every prior, -1 for background."""
    objects = truth.boxes[0][truth.valid[0]]
    labels = truth.labels[0][truth.valid[0]]
    stride = predictions.priors.strides[:, None]
    centers = predictions.priors.centers[0] + rule.shift * stride
    owner = [-1] * len(centers)
    if not len(objects):
        return owner
    middle = (objects[:, :2] + objects[:, 2:]) / 2
    tested = torch.tensor([grown(box, rule.floor) for box in objects.tolist()]) if rule.floor else objects
    inside = inside_of(centers[:, None] - tested[:, :2], tested[:, 2:] - centers[:, None])
    radius = rule.radius * stride[..., None]
    central = inside_of(centers[:, None] - (middle - radius), (middle + radius) - centers[:, None])
    candidates = (inside | central).any(1).nonzero().flatten().tolist()
    overlap = box_iou(predictions.boxes[0], objects)
    score = predictions.scores()[0]
    score = score.sqrt() if isinstance(predictions, JointPredictions) else score
    targets = one_hot(torch.arange(CLASSES)).float()[:, None].expand(-1, len(centers), -1)
    entropy = binary_cross_entropy(score.expand_as(targets), targets, reduction="none").sum(2)  # by class, then prior
    cost = torch.full((len(centers), len(objects)), torch.inf)
    for g in range(len(objects)):
        far = torch.where(inside[:, g] & central[:, g], 0.0, 1e5)
        wanted = entropy[labels[g]] - rule.iou_weight * (overlap[:, g] + 1e-7).log() + far
        cost[candidates, g] = wanted[candidates]
    takers: dict[int, list[int]] = {}
    for g in range(len(objects)):
        best = overlap[candidates, g].sort(descending=True).values[: rule.topk]
        number = max(1, int(best.sum()))
        for n in cost[:, g].sort(stable=True).indices[: min(number, len(candidates))].tolist():
            takers.setdefault(n, []).append(g)
    for n, wanted in takers.items():
        owner[n] = wanted[0] if len(wanted) == 1 else int(cost[n].argmin())
    return owner


def inside_of(low: Tensor, high: Tensor) -> Tensor:
    return torch.cat((low, high), -1).amin(-1) > 0


@pytest.mark.parametrize("rule", [SimOTA(), SimOTA(5, 1.0, 1.5, shift=0.5), SimOTA(floor=24.0)])
@pytest.mark.parametrize("kind", [Predictions, JointPredictions])
@pytest.mark.parametrize("count", [0, 1, 6, 60, 300])
def test_equals_a_literal_reference(count: int, kind: type[Predictions], rule: SimOTA) -> None:
    predictions, truth = predictions_of(kind, 1, count, GRID), truth_of([count], count + 1)
    found = rule(predictions, truth)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == slow(predictions, truth, rule)
    own = box_iou(predictions.boxes[0], truth.boxes[0])
    for n in found.positive[0].nonzero().flatten().tolist():
        assert float(found.quality[0, n]) == pytest.approx(float(own[n, found.index[0, n]]), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_hard_scenes(seed: int) -> None:
    predictions, truth = predictions_of(JointPredictions, 1, seed, GRID), hard_truth(seed)
    found = SimOTA()(predictions, truth)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == slow(predictions, truth, SimOTA())


def test_an_object_without_a_prior_inside_takes_one_near_its_center() -> None:
    priors = GRID([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)])
    predictions = Predictions(priors, torch.zeros(1, 21, CLASSES), priors.boxes)
    tiny = {"boxes": torch.tensor([[9.0, 9.0, 11.0, 11.0]]), "labels": torch.tensor([1])}
    found = SimOTA()(predictions, GroundTruth.collate([tiny], [(32, 32)]))
    assert int(found.positive.sum()) == 1


def test_a_prior_that_is_not_finite_is_not_matched() -> None:
    predictions, truth = predictions_of(JointPredictions, 1, 1, GRID), truth_of([4], 2)
    before = SimOTA()(predictions, truth)
    prior = int(before.positive[0].int().argmax())
    for invalid in (predictions.logits, predictions.boxes):
        invalid[0, prior] = torch.nan
        assert not SimOTA()(predictions, truth).positive[0, prior]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"topk": 0}, {"radius": 0.0}, {"iou_weight": -1.0}):
        with pytest.raises(ValueError, match="SimOTA"):
            SimOTA(**wrong)


def test_half_precision_predictions_are_matched_in_float32() -> None:
    predictions, truth = predictions_of(JointPredictions, 1, 3, GRID), truth_of([5], 4)
    rounded = JointPredictions(
        Priors(predictions.priors.boxes, predictions.priors.strides, predictions.priors.level_sizes),
        predictions.logits.half(),
        predictions.boxes.half(),
        predictions.quality.half(),
    )
    found = SimOTA()(rounded, truth)
    assert found.quality.dtype == torch.float32 and found.positive.any()
