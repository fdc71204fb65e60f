"""Losses for rare classes, against the articles' formulas in Python's numbers over several steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from poise import create_model
from poise.boxes import DeltaCoder
from poise.criteria import AnchorCriterion, RegionCriterion
from poise.criteria.class_totals import ClassTotals
from poise.criteria.equalization_v2 import EqualizationV2, EqualizationV2Criterion
from poise.criteria.equalized_focal import EqualizedFocal, EqualizedFocalCriterion
from poise.criteria.seesaw import Seesaw, SeesawCriterion
from poise.engine.batch_size import generated_batch
from poise.models.files import load_model, save_model
from poise.structures import (
    Assignment,
    DeltaPredictions,
    GroundTruth,
    ObjectnessRegionPredictions,
    Priors,
    Progress,
    RegionPredictions,
    SigmoidRegionPredictions,
)
from poise.testing.data_dependence import DataDependence

CLASSES, PRIORS = 3, 12


def truth_of(labels: list[int]) -> GroundTruth:
    boxes = torch.tensor([[4.0 * i, 4.0, 4.0 * i + 20, 30.0] for i in range(len(labels))]).reshape(-1, 4)
    target = {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.long)}
    return GroundTruth.collate([target, target], [(64, 64)] * 2)


def assignment_of(step: int, objects: int) -> Assignment:
    """A third of the priors is positive, some are ignored; without objects none is positive."""
    generator = torch.Generator().manual_seed(step)
    index = torch.randint(0, max(objects, 1), (2, PRIORS), generator=generator)
    positive = (torch.rand(2, PRIORS, generator=generator) < 0.4) & (objects > 0)
    ignored = ~positive & (torch.rand(2, PRIORS, generator=generator) < 0.2)
    return Assignment(index, positive, ignored, positive.float())


STEPS = ([0, 0, 1], [0, 0, 0], [], [0, 2, 1], [1, 0, 0])  # labels of the objects


def predictions_of(kind: type, step: int) -> RegionPredictions | DeltaPredictions:
    generator = torch.Generator().manual_seed(100 + step)
    boxes = torch.tensor([5.0, 5, 30, 30]).expand(2, PRIORS, 4)
    priors = Priors(boxes, torch.ones(PRIORS), (PRIORS,))
    logits = (2 * torch.randn(2, PRIORS, CLASSES, generator=generator)).requires_grad_()
    deltas = torch.zeros(2, PRIORS, 4)
    if issubclass(kind, RegionPredictions):
        background = torch.randn(2, PRIORS, generator=generator).requires_grad_()
        return kind(priors, logits, boxes, background, deltas[:, :, None])
    return kind(priors, logits, boxes, deltas)


def regions(step: int, labels: list[int]) -> list[tuple[int | None, list[float], float]]:
    """Label (None: background), logits and background logit of each sampled region."""
    assignment, predictions = assignment_of(step, len(labels)), predictions_of(RegionPredictions, step)
    found = []
    for i in range(2):
        for n in range(PRIORS):
            if not assignment.ignored[i, n]:
                label = labels[int(assignment.index[i, n])] if assignment.positive[i, n] else None
                found.append((label, predictions.logits[i, n].tolist(), predictions.background[i, n].item()))
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(x: float, target: bool) -> float:
    return -math.log(sigmoid(x) if target else sigmoid(-x))


def assert_steps(criterion: SeesawCriterion | EqualizationV2Criterion, kind: type, literal: list[float]) -> None:
    for step, (labels, expected) in enumerate(zip(STEPS, literal, strict=True)):
        truth, assignment = truth_of(labels), assignment_of(step, len(labels))
        found = criterion(predictions_of(kind, step), assignment, truth)["loss_cls"]
        assert found.item() == pytest.approx(expected, rel=1e-5), f"step {step}"


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.0, 2.0), (0.5, 0.0)])
def test_seesaw(p: float, q: float) -> None:
    counts, literal = [0] * CLASSES, []
    for step, labels in enumerate(STEPS):
        sampled, total = regions(step, labels), 0.0
        for label, _, _ in sampled:
            if label is not None:
                counts[label] += 1
        for label, logits, background in sampled:
            total += cross_entropy(background, label is None)
            if label is None:
                continue
            scores = [math.exp(z) / sum(map(math.exp, logits)) for z in logits]
            denominator = 0.0
            for j in range(CLASSES):
                mitigation = min(1.0, max(counts[j], 1) / max(counts[label], 1)) ** p
                compensation = max(1.0, scores[j] / max(scores[label], 0.01)) ** q
                denominator += (1.0 if j == label else mitigation * compensation) * math.exp(logits[j])
            total -= math.log(math.exp(logits[label]) / denominator)
        literal.append(total / len(sampled))
    criterion = SeesawCriterion(RegionCriterion(DeltaCoder()), Seesaw(p, q), ClassTotals(CLASSES, 1, torch.int64))
    assert_steps(criterion, ObjectnessRegionPredictions, literal)
    shown = criterion.class_statistics()
    assert shown["samples"].tolist() == criterion.counts.totals[:, 0].tolist() == counts
    assert shown["mitigation_factor"].tolist() == pytest.approx([(max(n, 1) / max(counts)) ** p for n in counts])


def test_equalization_v2() -> None:
    gamma, mu, alpha = 6.0, 0.5, 3.0
    positive, negative, literal = [0.0] * CLASSES, [0.0] * CLASSES, []
    for step, labels in enumerate(STEPS):
        sampled, total = regions(step, labels), 0.0
        lowered = [1.0 if step == 0 else sigmoid(gamma * (positive[c] / negative[c] - mu)) for c in range(CLASSES)]
        gradients = [[0.0, 0.0] for _ in range(CLASSES)]
        for label, logits, background in sampled:
            total += cross_entropy(background, label is None)
            for c in range(CLASSES):
                own = c == label
                weight = 1 + alpha * (1 - lowered[c]) if own else lowered[c]
                total += weight * cross_entropy(logits[c], own)
                gradients[c][not own] += weight * abs(sigmoid(logits[c]) - own)
        for c in range(CLASSES):
            positive[c] += gradients[c][0]
            negative[c] += gradients[c][1]
        literal.append(total / len(sampled))
    loss, totals = EqualizationV2(gamma, mu, alpha), ClassTotals(CLASSES, 2)
    criterion = EqualizationV2Criterion(RegionCriterion(DeltaCoder()), loss, totals)
    assert_steps(criterion, SigmoidRegionPredictions, literal)
    expected = [list(pair) for pair in zip(positive, negative, strict=True)]
    torch.testing.assert_close(totals.totals, torch.tensor(expected))
    lowered = [sigmoid(gamma * (positive[c] / negative[c] - mu)) for c in range(CLASSES)]
    shown = criterion.class_statistics()
    assert shown["positive_gradient"].tolist() == pytest.approx(positive)
    assert shown["negative_gradient"].tolist() == pytest.approx(negative)
    assert shown["negative_factor"].tolist() == pytest.approx(lowered)
    assert shown["positive_factor"].tolist() == pytest.approx([1 + alpha * (1 - one) for one in lowered])
    weights = criterion.weights(predictions_of(SigmoidRegionPredictions, 0), assignment_of(0, 3), truth_of(STEPS[0]))
    counted = int((~assignment_of(0, 3).ignored).sum())
    raised, down = loss.class_weights(totals.totals)
    own = weights.positive > 0
    torch.testing.assert_close(weights.positive[own], (raised / counted).expand_as(weights.positive)[own])
    assert bool((weights.negative[own] == 0).all()) and float(weights.negative.amax()) <= float(down.max()) / counted


def test_equalized_focal() -> None:
    """The gradients are those of the literal loss by autograd."""
    scale, alpha, gamma = 4.0, 0.25, 2.0
    totals = ClassTotals(CLASSES, 2)
    criterion = EqualizedFocalCriterion(AnchorCriterion(), EqualizedFocal(scale), totals)
    positive, negative = [0.0] * CLASSES, [0.0] * CLASSES
    for step, labels in enumerate(STEPS):
        truth, assignment = truth_of(labels), assignment_of(step, len(labels))
        predictions = predictions_of(DeltaPredictions, step)
        logits = predictions.logits.detach().clone().requires_grad_()
        count = sum(max(1, int(assignment.positive[i].sum())) for i in range(2))
        terms, owners = [], []
        for i in range(2):
            for n in range(PRIORS):
                for c in range(CLASSES):
                    if assignment.ignored[i, n]:
                        continue
                    own = bool(assignment.positive[i, n]) and labels[int(assignment.index[i, n])] == c
                    ratio = 1.0 if step == 0 else min(1.0, max(0.0, positive[c] / negative[c]))
                    focus = gamma + scale * (1 - ratio)
                    p = torch.sigmoid(logits[i, n, c])
                    p_t, alpha_t = (p, alpha) if own else (1 - p, 1 - alpha)
                    terms.append(-alpha_t * (focus / gamma) * (1 - p_t) ** focus * p_t.log() / count)
                    owners.append((i, n, c, own))
        literal = torch.stack(terms).sum()
        (gradient,) = torch.autograd.grad(literal, logits)
        losses = criterion(predictions, assignment, truth)
        torch.testing.assert_close(losses["loss_cls"], literal)
        (found,) = torch.autograd.grad(losses["loss_cls"], predictions.logits)
        torch.testing.assert_close(found, gradient)
        for i, n, c, own in owners:
            (positive if own else negative)[c] += abs(float(gradient[i, n, c]))
        expected = [list(pair) for pair in zip(positive, negative, strict=True)]
        torch.testing.assert_close(totals.totals, torch.tensor(expected))
    expected_focus = [gamma + scale * (1 - min(1.0, positive[c] / negative[c])) for c in range(CLASSES)]
    shown = criterion.class_statistics()
    assert shown["positive_gradient"].tolist() == pytest.approx(positive)
    assert shown["focusing_factor"].tolist() == pytest.approx(expected_focus)
    assert shown["loss_factor"].tolist() == pytest.approx([one / gamma for one in expected_focus])
    counted = criterion.weights(predictions, assignment, truth)
    assert bool((counted.positive.amax(2) > 0).eq(assignment.positive).all())


def test_without_imbalance_it_is_the_focal_loss() -> None:
    predictions, assignment, truth = predictions_of(DeltaPredictions, 0), assignment_of(0, 3), truth_of(STEPS[0])
    plain = AnchorCriterion()(predictions, assignment, truth)
    equalized = EqualizedFocalCriterion(AnchorCriterion(), EqualizedFocal(), ClassTotals(CLASSES, 2))
    torch.testing.assert_close(equalized(predictions, assignment, truth)["loss_cls"], plain["loss_cls"])


def criteria() -> list[tuple[SeesawCriterion | EqualizationV2Criterion | EqualizedFocalCriterion, type]]:
    region = RegionCriterion(DeltaCoder())
    return [
        (SeesawCriterion(region, Seesaw(), ClassTotals(CLASSES, 1, torch.int64)), ObjectnessRegionPredictions),
        (EqualizationV2Criterion(region, EqualizationV2(), ClassTotals(CLASSES, 2)), SigmoidRegionPredictions),
        (EqualizedFocalCriterion(AnchorCriterion(), EqualizedFocal(), ClassTotals(CLASSES, 2)), DeltaPredictions),
    ]


@pytest.mark.parametrize("number", range(3))
def test_a_training_step_adds_without_waiting_and_nothing_else_adds(number: int) -> None:
    criterion, kind = criteria()[number]
    totals: ClassTotals = next(value for value in vars(criterion).values() if isinstance(value, ClassTotals))
    arguments = predictions_of(kind, 0), assignment_of(0, 3), truth_of(STEPS[0])
    with torch.no_grad():
        criterion(*arguments)
    totals.eval()
    criterion(*arguments)
    criterion.weights(*arguments)
    assert not totals.totals.any()
    totals.train()
    with DataDependence() as counted:
        criterion(*arguments)
    assert totals.totals.any() and not counted.found
    before = totals.totals.clone()
    empty = criterion(predictions_of(kind, 7), assignment_of(7, 0), truth_of([]))
    assert all(bool(value.isfinite()) for value in empty.values()) and bool(totals.totals.isfinite().all())
    assert torch.equal(totals.totals[:, 0], before[:, 0]), "no positive, no gradient of positives"


@pytest.mark.parametrize(("kind", "softmax"), [(ObjectnessRegionPredictions, True), (SigmoidRegionPredictions, False)])
def test_scores_are_those_of_the_class_times_that_of_an_object(kind: type, softmax: bool) -> None:
    predictions = predictions_of(kind, 1)
    logits, background = predictions.logits[0, 3].tolist(), float(predictions.background[0, 3])
    own = [math.exp(z) / sum(map(math.exp, logits)) if softmax else sigmoid(z) for z in logits]
    expected = torch.tensor([one * (1 - sigmoid(background)) for one in own])
    torch.testing.assert_close(predictions.threshold_scores()[0, 3], expected)
    torch.testing.assert_close(predictions.scores()[0, 3], expected)


SMALL = {"num_classes": CLASSES, "image_size": 64, "backbone": "test_resnet", "channels": 16}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("faster_rcnn_r18_fpn", {"hidden": 16, "class_balance": "seesaw(p=0.5)", "sampler": "ohem"}),
        ("faster_rcnn_r18_fpn", {"hidden": 16, "class_balance": EqualizationV2(mu=0.5)}),
        ("retinanet_r18_fpn", {"depth": 1, "class_balance": "equalized_focal"}),
    ],
)
def test_a_saved_model_continues_exactly(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    model = create_model(name, **SMALL, deterministic="sampler" not in options, **options).train()
    batch = generated_batch(2, 3, height=64, width=64, device=torch.device("cpu"))

    def step(network: torch.nn.Module) -> Tensor:
        torch.manual_seed(0)
        losses = network(batch, Progress(0, 0)).losses
        return torch.stack(list(losses.values())).detach()

    first = step(model.network)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt").train()
    stored = {key: value for key, value in loaded.state_dict().items() if key.endswith("class_totals.totals")}
    assert len(stored) == 1 and all(value.any() for value in stored.values())
    second = step(model.network)
    assert torch.equal(second, step(loaded.network)) and not torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "balance", "reason"),
    [
        ("fcos_r18_fpn", "seesaw", "defined for the second stage of two-stage detectors"),
        ("gfl_r18_fpn", "equalized_focal", "the class loss of its DistributionCriterion is not the focal loss"),
        ("faster_rcnn_r18_fpn", "equalized_focal", "defined for the focal loss of one-stage detectors"),
        ("faster_rcnn_r18_fpn", "seasaw", "did you mean 'seesaw'"),
        ("faster_rcnn_r18_fpn", "seesaw(p=-1.0)", "not below 0"),
    ],
)
def test_refusals(name: str, balance: str, reason: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=reason):
        create_model(name, **SMALL, class_balance=balance)
