"""Task-aligned assignment against a slow reference written from the specification, one object after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.scenes import hard_truth, predictions_of, truth_of
from support.similarities import grown, literal
from torchvision.ops import box_iou

from poise.assign import TaskAligned
from poise.similarities import GCD, NWD
from poise.structures import GroundTruth, JointPredictions, Predictions


def slow(predictions: Predictions, truth: GroundTruth, rule: TaskAligned) -> tuple[list[int], list[float]]:
    """Object (-1: none) and normalized alignment of every prior."""
    objects, labels = truth.boxes[0][truth.valid[0]], truth.labels[0][truth.valid[0]].tolist()
    centers = predictions.priors.centers[0]
    owner, quality = [-1] * len(centers), [0.0] * len(centers)
    if not len(objects):
        return owner, quality
    overlap = box_iou(predictions.boxes[0], objects)
    if rule.similarity is not None:
        similar = literal(rule.similarity)
        overlap = torch.tensor([[similar(a, b) for b in objects.tolist()] for a in predictions.boxes[0].tolist()])
    scores = predictions.scores()[0]
    best = [-1.0] * len(centers)
    metric = torch.stack([scores[:, c] ** rule.alpha * overlap[:, g] ** rule.beta for g, c in enumerate(labels)], 1)
    for g in range(len(objects)):
        for n in metric[:, g].sort(descending=True, stable=True).indices[: rule.topk].tolist():
            x, y = centers[n].tolist()
            x1, y1, x2, y2 = grown(objects[g].tolist(), rule.floor) if rule.floor else objects[g].tolist()
            inside = min(x - x1, y - y1, x2 - x, y2 - y) > rule.inside
            if inside and float(metric[n, g]) > 0 and float(overlap[n, g]) > best[n]:
                owner[n], best[n] = g, float(overlap[n, g])
    for g in range(len(objects)):
        positives = [n for n, who in enumerate(owner) if who == g]
        if rule.keep is not None:
            best_first = sorted(positives, key=lambda n: (-float(metric[n, g]), n))
            positives = best_first[: rule.keep]
            for n in best_first[rule.keep :]:
                owner[n] = -1
        highest = max((float(metric[n, g]) for n in positives), default=0.0)
        for n in positives:
            quality[n] = float(metric[n, g]) / (highest + 1e-7) * max(float(overlap[m, g]) for m in positives)
    return owner, quality


@pytest.mark.parametrize(
    "rule", [TaskAligned(floor=24.0), TaskAligned(similarity=NWD(20.0)), TaskAligned(4, similarity=GCD(), floor=24.0)]
)
def test_small_objects(rule: TaskAligned) -> None:
    """With a floor of the sides, and with another similarity."""
    predictions, truth = predictions_of(JointPredictions, 1, 3), hard_truth(3)
    found = rule(predictions, truth)
    owner, quality = slow(predictions, truth, rule)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == owner
    torch.testing.assert_close(found.quality[0], torch.tensor(quality), atol=1e-5, rtol=1e-4)
    if rule.floor:
        assert len(set(owner)) > len(set(slow(predictions, truth, replace(rule, floor=0.0))[0]))


@pytest.mark.parametrize("rule", [TaskAligned(), TaskAligned(4, 0.5, 2.0), TaskAligned(7, keep=1)])
@pytest.mark.parametrize("kind", [Predictions, JointPredictions])
@pytest.mark.parametrize("count", [0, 1, 6, 60, 300])
def test_equals_a_literal_reference(count: int, kind: type[Predictions], rule: TaskAligned) -> None:
    predictions, truth = predictions_of(kind, 1, count), truth_of([count], count + 1)
    found = rule(predictions, truth)
    owner, quality = slow(predictions, truth, rule)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == owner
    torch.testing.assert_close(found.quality[0], torch.tensor(quality), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_hard_scenes(seed: int) -> None:
    predictions, truth = predictions_of(JointPredictions, 1, seed), hard_truth(seed)
    found = TaskAligned()(predictions, truth)
    assert torch.where(found.positive, found.index, -1)[0].tolist() == slow(predictions, truth, TaskAligned())[0]


def test_priors_outside_the_images_own_padding_are_ignored() -> None:
    predictions, truth = predictions_of(Predictions, 1, 1), truth_of([8], 2)
    narrow = GroundTruth(truth.boxes, truth.labels, truth.valid, truth.crowd, torch.tensor([[40.0, 60.0]]))
    found = TaskAligned()(predictions, narrow)
    outside = ~predictions.priors.within(torch.tensor([[64.0, 64.0]]))
    assert torch.equal(found.ignored, outside) and not found.positive[outside].any()
    assert not TaskAligned(divisor=0)(predictions, narrow).ignored.all()


def test_a_prior_that_is_not_finite_is_not_matched() -> None:
    predictions, truth = predictions_of(JointPredictions, 1, 1), truth_of([4], 2)
    prior = int(TaskAligned()(predictions, truth).positive[0].int().argmax())
    predictions.logits[0, prior] = torch.nan
    assert not TaskAligned()(predictions, truth).positive[0, prior]


def test_one_to_one() -> None:
    """With keep=1 an object has one prior at most: that of the highest metric which no other object takes."""
    predictions, truth = predictions_of(JointPredictions, 2, 40), truth_of([60, 0], 3)
    many, one = TaskAligned(7)(predictions, truth), TaskAligned(7, keep=1)(predictions, truth)
    owners = one.index[0][one.positive[0]]
    assert len(owners) == len(owners.unique()) and not one.positive[1].any()
    assert set(owners.tolist()) == set(many.index[0][many.positive[0]].tolist())  # nobody loses the last one
    assert bool((many.positive | ~one.positive).all()) and bool((one.index == many.index).all())
    overlap = box_iou(predictions.boxes[0], truth.boxes[0])[one.positive[0], owners]
    near = overlap > 0.5  # elsewhere the normalization's 1e-7 counts
    assert near.any()
    torch.testing.assert_close(one.quality[0][one.positive[0]][near], overlap[near], atol=1e-3, rtol=0)
    assert TaskAligned(1, keep=1)(predictions, truth).positive.sum() < one.positive.sum()  # fewer to choose from


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"topk": 0}, {"keep": 0}, {"topk": 2, "keep": 3}, {"alpha": -1.0}, {"beta": -1.0}, {"floor": -1.0}):
        with pytest.raises(ValueError, match="TaskAligned"):
            TaskAligned(**wrong)
