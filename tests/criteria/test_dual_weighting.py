"""DW's weights and losses: the authors' numbers with every gradient, a literal reference, the article's variants."""

from __future__ import annotations

import math

import pytest
import torch
from support.parity import golden, relative
from support.scenes import POINTS, predictions_of, truth_of
from torch import Tensor

from poise import boxes
from poise.assign.center_priors import GaussianCenterPrior, ThresholdedCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import DualWeighting, LinearIoU, NormalizedIoU, box_likelihood
from poise.boxes import decode_distances
from poise.criteria.dual_weighting import DualWeightingCriterion, NegativeWeightFactors
from poise.pairwise import Objects
from poise.pairwise.stored_pairs import DensePairs
from poise.structures import GroundTruth, JointPredictions, Priors

NUMBERS = golden("dw_loss")
LEVELS = tuple(int(count) for count in golden("assigners")["num_level_priors"])
NO_OBJECTS = Objects(torch.zeros(1, 1, 4), torch.zeros(1, 1).long(), torch.ones(1, 1).bool(), slice(0, 1))
SCENES = sorted({key.split("_")[0] for key in NUMBERS if key.startswith("s")})


def batch(scene: str, part: str) -> Tensor:
    return torch.stack([NUMBERS[f"{scene}_{image}_{part}"] for image in "ab"]).requires_grad_()


@pytest.mark.parametrize("scene", SCENES)
def test_authors_losses_and_gradients(scene: str) -> None:
    points = NUMBERS["points"].float()
    centers, stride = points[:, :2], points[:, 2:]
    priors = Priors(torch.cat((centers - stride / 2, centers + stride / 2), 1)[None], stride[:, 0], LEVELS)
    leaves = {part: batch(scene, part) for part in ("logits", "ltrb", "objectness_logits")}
    decoded = decode_distances(priors.centers, leaves["ltrb"])
    predictions = JointPredictions(priors, leaves["logits"], decoded, leaves["objectness_logits"].squeeze(2))
    targets = [{"boxes": NUMBERS[f"{scene}_{i}_gt_boxes"], "labels": NUMBERS[f"{scene}_{i}_gt_labels"]} for i in "ab"]
    truth = GroundTruth.collate(targets, [(256, 320)] * 2)
    losses = DualWeightingCriterion()(predictions, DualWeighting()(predictions, truth), truth)
    for name, loss in losses.items():
        assert relative(loss.detach(), NUMBERS[f"{scene}_{name}"]) < 1e-5, name
    torch.stack(list(losses.values())).sum().backward()
    for name, leaf in leaves.items():
        wanted = NUMBERS[f"{scene}_grad_{name}"]
        assert leaf.grad is not None
        assert float((leaf.grad - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max()), name


def slow_weights(
    predictions: JointPredictions, truth: GroundTruth, rule: DualWeighting, sigma: float
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    """Positive weights by (prior, object) and negative weights by (prior, class), one pair at a time."""
    positive: dict[tuple[int, int], float] = {}
    negative: dict[tuple[int, int], float] = {}
    centers, strides = predictions.priors.centers[0].double(), predictions.priors.strides.double()
    scores = predictions.logits[0].double().sigmoid() * predictions.quality[0].double().sigmoid()[:, None]
    for g in range(int(truth.valid[0].sum())):
        box, label = truth.boxes[0, g].double(), int(truth.labels[0, g])
        x1, y1, x2, y2 = box.tolist()
        inside = [n for n, (x, y) in enumerate(centers.tolist()) if min(x - x1, y - y1, x2 - x, y2 - y) > 0]
        weights, spread = {}, {}
        for n in inside:
            x, y = centers[n].tolist()
            away = [(x - (x1 + x2) / 2) / float(strides[n]), (y - (y1 + y2) / 2) / float(strides[n])]
            prior = math.exp(-(away[0] ** 2 + away[1] ** 2) / (2 * sigma**2))
            predicted = predictions.boxes[0, n].double()
            p = float(scores[n, label]) * math.exp(-rule.beta * (1 - float(boxes.giou(predicted, box))))
            weights[n] = (math.exp(rule.mu * p) * p * prior, math.exp(rule.mu_total * p) * p * prior)
            spread[n] = (1 - float(boxes.iou(predicted, box)) ** 2) / (1 - 0.5**2)
        total = max(sum(share for _, share in weights.values()), 1e-12)
        for n in inside:
            positive[n, g] = weights[n][0] / total
            low, high = min(spread.values()), min(1.0, max(spread.values()))
            scaled = (spread[n] - low + 1e-12) / (high - low + 1e-12)
            negative[n, label] = 1.0 if spread[n] > 1 else scaled
    return positive, negative


@pytest.mark.parametrize("count", [0, 1, 5, 40])
@pytest.mark.parametrize("rule", [DualWeighting(), DualWeighting(beta=2.0, mu=4.0, mu_total=4.0)])
def test_equals_a_literal_reference(rule: DualWeighting, count: int) -> None:
    predictions = predictions_of(JointPredictions, 1, count, POINTS)
    assert isinstance(predictions, JointPredictions)
    truth = truth_of([count], count + 1)
    found = rule(predictions, truth)
    positive, negative = slow_weights(predictions, truth, rule, 1.11)
    wanted, rest = torch.zeros_like(found.positive), torch.ones_like(found.negative)
    for (n, g), value in positive.items():
        wanted[0, n, g] = value
    for (n, c), value in negative.items():
        rest[0, n, c] = value
    torch.testing.assert_close(found.positive, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.negative, rest, rtol=1e-3, atol=1e-5)
    assert {(n, c) for n, c in found.inside[0].nonzero().tolist()} == set(negative)


def test_the_articles_weights_of_an_object_sum_to_one() -> None:
    predictions, truth = predictions_of(JointPredictions, 2, 0, POINTS), truth_of([6, 3], 1)
    sums = DualWeighting(mu_total=5.0)(predictions, truth).positive.sum(1)
    inside_mask = DualWeighting()(predictions, truth).positive.sum(1) > 0
    torch.testing.assert_close(sums[inside_mask], torch.ones(int(inside_mask.sum())))
    assert not sums[~inside_mask].any()


def test_the_articles_overlap_function() -> None:
    overlap = torch.tensor([[[0.0, 0.3, 0.5, 0.7, 0.95, 1.0]]])
    value = LinearIoU()(overlap, DensePairs(overlap > 0), NO_OBJECTS)[0, 0]
    between = (0.95**2 - 0.7**2) / (0.95**2 - 0.5**2)
    torch.testing.assert_close(value, torch.tensor([1.0, 1.0, 1.0, between, 0.0, 0.0]))


def test_the_normalized_overlap_function_gives_the_best_prior_probability_0() -> None:
    overlap = torch.tensor([[[0.2, 0.6, 0.8, 0.9]]])
    value = NormalizedIoU()(overlap, DensePairs(torch.tensor([[[True, True, True, False]]])), NO_OBJECTS)[0, 0]
    assert value[0] == 1 and 0 < float(value[1]) < 1 and float(value[2]) == pytest.approx(0, abs=1e-6)


def test_bags() -> None:
    predictions, truth = predictions_of(JointPredictions, 1, 0, POINTS), truth_of([9], 1)
    everything = DensePairs(torch.ones(1, 1, 1, dtype=torch.bool))
    objects = Objects(truth.boxes, truth.labels, truth.valid, slice(0, truth.labels.shape[1]))
    arguments = (predictions.priors, objects, everything)
    soft = GaussianCenterPrior()(*arguments)
    assert torch.equal(ThresholdedCenterPrior(GaussianCenterPrior(), 0.3)(*arguments), (soft > 0.3).float())
    nearest = TopKCenterPrior(4)(*arguments)
    for level, prior in zip(
        nearest.split(predictions.priors.level_sizes, 2), soft.split(predictions.priors.level_sizes, 2), strict=True
    ):
        assert (level.sum(2) == 4).all()
        assert torch.where(level > 0, prior, 2).amin(2).ge(torch.where(level > 0, -1.0, prior).amax(2) - 1e-6).all()


@pytest.mark.parametrize(
    ("combine", "inside"),
    [
        (NegativeWeightFactors.probability_and_importance, lambda e: e.probability * e.importance),
        (NegativeWeightFactors.probability_only, lambda e: e.probability),
        (NegativeWeightFactors.importance_only, lambda e: e.importance),
        (NegativeWeightFactors.neither, lambda e: torch.zeros_like(e.importance)),
        (NegativeWeightFactors.complement, lambda e: (1 - e.positive).clamp(min=0)),
    ],
)
def test_negative_weights(combine, inside) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    probability, importance, positive = torch.rand(3, 1, 20, 4, generator=generator)
    inside_mask = torch.rand(1, 20, 4, generator=generator) < 0.5
    factors = NegativeWeightFactors(torch.where(inside_mask, probability, 1.0), importance, positive * 1.5, inside_mask)
    assert torch.equal(combine(factors)[inside_mask], inside(factors)[inside_mask])
    assert torch.equal(combine(factors)[~inside_mask], importance[~inside_mask])


def test_a_detached_importance_changes_gradients_alone() -> None:
    truth = truth_of([6], 1)
    results = []
    for detached in (False, True):
        predictions = predictions_of(JointPredictions, 1, 0, POINTS)
        predictions.logits.requires_grad_()
        criterion = DualWeightingCriterion(detached=detached)
        loss = criterion(predictions, DualWeighting()(predictions, truth), truth)["loss_cls_neg"]
        loss.backward()
        results.append((loss.detach(), predictions.logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert float((results[0][1] - results[1][1]).abs().max()) > 1e-3


def test_weights_have_gradients_unless_detached() -> None:
    predictions, truth = predictions_of(JointPredictions, 1, 0, POINTS), truth_of([6], 1)
    predictions.boxes.requires_grad_()
    assert not DualWeighting()(predictions, truth).positive.requires_grad
    weights = DualWeighting(detached=False)(predictions, truth)
    assert weights.positive.requires_grad and not weights.negative.requires_grad
    weights.positive.square().sum().backward()
    assert predictions.boxes.grad is not None and predictions.boxes.grad.isfinite().all()


def test_many_objects_are_streamed_with_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, gradients = truth_of([40, 25], 1), []
    for stream in (1 << 25, 5000):
        monkeypatch.setattr("poise.pairwise.chunks.PLANE_ELEMENTS", stream)
        predictions = predictions_of(JointPredictions, 2, 0, POINTS)
        predictions.boxes.requires_grad_()
        losses = DualWeightingCriterion()(predictions, DualWeighting()(predictions, truth), truth)
        torch.stack(list(losses.values())).sum().backward()
        gradients.append(predictions.boxes.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        lambda: DualWeighting(beta=-1.0),
        lambda: GaussianCenterPrior(0.0),
        lambda: TopKCenterPrior(0),
        lambda: ThresholdedCenterPrior(GaussianCenterPrior(), 1.0),
        lambda: DualWeightingCriterion(gamma=-1.0),
    ):
        with pytest.raises(ValueError, match=r"\("):
            wrong()


def test_box_likelihood_is_one_for_a_perfect_box() -> None:
    assert float(box_likelihood(torch.tensor(1.0), torch.tensor(1.0), 5.0)) == 1.0
