"""FreeAnchor and AutoAssign, assigner and losses, against loops written from the specification in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.hard_scenes import hard_truth, objects_of
from support.scenes import CLASSES, POINTS, STRIDES, predictions_of, truth_of
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.ops import box_iou, generalized_box_iou

from poise.assign.auto_assign import AutoAssign
from poise.assign.center_priors import GaussianCenterPrior
from poise.assign.free_anchor import FreeAnchor, as_topk, offsets_of_head
from poise.boxes import DeltaCoder
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.nn.layers import AnchorGrid, square_anchors
from poise.structures import DeltaPredictions, GroundTruth, PairWeights, Predictions, QualityPredictions

ANCHORS = AnchorGrid(STRIDES, (2.0, 4.0), (0.5, 2.0))
COUNTS = [0, 1, 4, 10, 40, 300]


def negative_log(probability: Tensor) -> Tensor:
    return -probability.log().clamp(min=-100)


def summed(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)


def slow_free_anchor(predictions: DeltaPredictions, truth: GroundTruth, rule: FreeAnchor) -> dict[str, Tensor]:
    boxes, labels = objects_of(truth)
    anchors, predicted = predictions.priors.boxes[0], predictions.boxes[0].detach()
    scores, deltas = predictions.logits[0].double().sigmoid(), predictions.deltas[0].double()
    positive, found = [], torch.zeros(len(anchors), CLASSES, dtype=torch.float64)
    for box, label in zip(boxes, labels.tolist(), strict=True):
        order = box_iou(box[None].float(), anchors)[0].tolist()
        bag = sorted(range(len(anchors)), key=lambda n: (-order[n], n))[: rule.topk]
        expected = rule.coder.encode(anchors[bag].double(), box)
        loss = smooth_l1_loss(deltas[bag], expected, reduction="none", beta=rule.beta).sum(1)
        values = scores[bag, label] * (-rule.box_weight * loss).exp()
        weight = 1 / (1 - values).clamp(min=1e-12)
        positive.append(negative_log((weight * values).sum() / weight.sum()))
        overlap = box_iou(box[None], predicted.double())[0]
        if overlap.max() > rule.threshold:
            sure = ((overlap - rule.threshold) / (overlap.max() - rule.threshold)).clamp(0, 1)
            found[:, label] = torch.maximum(found[:, label], sure)
    rest = scores * (1 - found)
    return {
        "positive_bag_loss": 0.5 * summed(positive) / max(1, len(boxes)),
        "negative_bag_loss": 0.5 * (rest**2 * negative_log(1 - rest)).sum() / max(1, len(boxes) * rule.topk),
    }


def slow_auto_assign(
    predictions: QualityPredictions, truth: GroundTruth, sigma: float, weights: str = "likelihood"
) -> dict[str, Tensor]:
    boxes, labels = objects_of(truth)
    centers, strides = predictions.priors.centers[0].tolist(), predictions.priors.strides.tolist()
    predicted = predictions.boxes[0].double()
    scores = predictions.logits[0].double().sigmoid() * predictions.quality[0].double().sigmoid()[:, None]
    overlap, generalized = box_iou(boxes, predicted).detach(), generalized_box_iou(boxes, predicted)
    positive, mass, weight = [], [], torch.ones_like(scores)
    for g, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        prior, fit, inside = [], [], []
        for n, (x, y) in enumerate(centers):
            if min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0:
                right, down = (x - (box[0] + box[2]) / 2) / strides[n], (y - (box[1] + box[3]) / 2) / strides[n]
                prior.append(math.exp(-(right**2 + down**2) / (2 * sigma**2)))
                fit.append(1 / max(1 - float(overlap[:, n].max()), 1e-12))
                inside.append(n)
        if not inside:
            positive.append(torch.tensor(100.0).double())
            continue
        priors = torch.tensor(prior, dtype=torch.float64)
        values = scores[inside, label] * (-5 * (1 - generalized[g, inside])).exp()
        confidence = (3 * values).exp() * priors
        weighed = confidence / confidence.sum() if weights == "likelihood" else (confidence / confidence.sum()).detach()
        if weights == "loss":
            positive.append((weighed * negative_log(values)).sum())
        else:
            positive.append(negative_log((weighed * values).sum()))
        mass.append(priors.sum())
        lowest, highest = min(fit), max(fit)
        for n, value in zip(inside, fit, strict=True):
            weight[n, label] = 1 - (value - lowest + 1e-12) / (highest - lowest + 1e-12)
    rest, total = scores * weight.detach(), summed(mass)
    return {
        "loss_pos": 0.25 * summed(positive) / max(1, len(boxes)),
        "loss_neg": 0.75 * (rest**2 * negative_log(1 - rest)).sum() / max(1.0, float(total.detach())),
        "loss_center": 0.75 * (len(boxes) / total if mass else torch.zeros(())),
    }


def with_gradient(predictions: Predictions, *names: str) -> list[Tensor]:
    return [getattr(predictions, name).requires_grad_() for name in names]


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], leaves: list[Tensor]) -> None:
    """Values, and the gradients of their sum."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-7), name
    gradients = torch.autograd.grad(torch.stack(list(found.values())).sum(), leaves, retain_graph=True)
    others = torch.autograd.grad(sum(expected.values()), leaves, allow_unused=True)  # type: ignore[arg-type]
    for gradient, other in zip(gradients, others, strict=True):
        expected = torch.zeros_like(gradient) if other is None else other.float()
        scale = max(float(expected.abs().max()), 1e-6)
        torch.testing.assert_close(gradient / scale, expected / scale, atol=1e-4, rtol=1e-3)


def near_objects(predictions: DeltaPredictions, truth: GroundTruth, seed: int) -> DeltaPredictions:
    """Offsets that lead every prior near the object with the highest IoU, so that boxes find objects."""
    boxes, _ = objects_of(truth)
    if not len(boxes):
        return predictions
    anchors, coder = predictions.priors.boxes, DeltaCoder((0.1, 0.1, 0.2, 0.2))
    expected = boxes[box_iou(anchors[0].double(), boxes).argmax(1)].float()[None]
    noise = torch.randn(anchors.shape, generator=torch.Generator().manual_seed(seed))
    deltas = coder.encode(anchors, expected) + 0.4 * noise
    return replace(predictions, deltas=deltas, boxes=coder.decode(anchors, deltas))


@pytest.mark.parametrize("count", COUNTS)
def test_free_anchor_as_written_out(count: int) -> None:
    truth, rule = hard_truth(count, count), FreeAnchor(topk=20, offsets=offsets_of_head)
    predictions = predictions_of(DeltaPredictions, 1, count, ANCHORS)
    assert isinstance(predictions, DeltaPredictions)
    predictions = near_objects(predictions, truth, count)
    leaves = with_gradient(predictions, "logits", "deltas")
    assignment = rule(predictions, truth)
    compare(FreeAnchorCriterion()(predictions, assignment, truth), slow_free_anchor(predictions, truth, rule), leaves)
    assert count < 10 or float(assignment.negative.min()) == 0, "a box of the scene must find its object"


@pytest.mark.parametrize("weights", ["likelihood", "detached", "loss"])
@pytest.mark.parametrize("count", COUNTS)
def test_auto_assign_as_written_out(count: int, weights: str) -> None:
    truth = hard_truth(count, count)
    predictions = predictions_of(QualityPredictions, 1, count, POINTS)
    assert isinstance(predictions, QualityPredictions)
    leaves = with_gradient(predictions, "logits", "boxes", "quality")
    rule = AutoAssign(GaussianCenterPrior(1.5), detached=weights != "likelihood", geometric=weights == "loss")
    expected = slow_auto_assign(predictions, truth, 1.5, weights)
    compare(AutoAssignCriterion()(predictions, rule(predictions, truth), truth), expected, leaves)


def test_offsets_of_boxes_where_a_head_predicts_none() -> None:
    truth, coder = truth_of([6], 1), DeltaCoder((0.1, 0.1, 0.2, 0.2))
    plain = predictions_of(Predictions, 1, 1, square_anchors(STRIDES, 4.0))
    deltas = coder.encode(plain.priors.boxes, plain.boxes)
    with_offsets = DeltaPredictions(plain.priors, plain.logits, plain.boxes, deltas)
    found, expected = FreeAnchor()(plain, truth), FreeAnchor(offsets=offsets_of_head)(with_offsets, truth)
    assert torch.equal(found.likelihood, expected.likelihood)


def test_ties_of_anchors_go_to_the_lowest_index_or_as_in_torch() -> None:
    predictions = predictions_of(DeltaPredictions, 1, 0, AnchorGrid(STRIDES, (2.0, 2.0, 2.0)))
    truth = truth_of([5], 0)
    first = FreeAnchor(topk=1)(predictions, truth)
    assert first.prior_index is not None and not (first.prior_index[..., :5] % 3).any()
    other = FreeAnchor(topk=1, choose=as_topk)(predictions, truth)
    overlap = box_iou(truth.boxes[0, :5], predictions.priors.boxes[0])
    assert other.prior_index is not None
    assert torch.equal(overlap.gather(1, other.prior_index[0].T[:5]), overlap.amax(1, keepdim=True))


@pytest.mark.parametrize("seed", range(4))
def test_listed_weights_equal_dense_ones(seed: int) -> None:
    predictions, truth = predictions_of(DeltaPredictions, 2, seed, ANCHORS), truth_of([30, 3], seed)
    listed = FreeAnchor(topk=7)(predictions, truth)
    dense = PairWeights(listed.pairs(), listed.negative)
    assert listed.prior_index is not None and listed.positive.shape == (2, 7, truth.labels.shape[1])
    assert dense.positive.shape == (2, predictions.boxes.shape[1], truth.labels.shape[1])
    found, expected = listed.hard(), dense.hard()
    assert torch.equal(found.positive, expected.positive)
    assert torch.equal(found.index[found.positive], expected.index[found.positive])
    assert torch.equal(found.quality, expected.quality)
    torch.testing.assert_close(listed.positive.sum(1), truth.valid.float())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="topk is at least 1"):
        FreeAnchor(topk=0)
    with pytest.raises(ValueError, match="threshold"):
        FreeAnchor(threshold=1.0)
