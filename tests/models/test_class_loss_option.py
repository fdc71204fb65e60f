"""Focal, quality focal and varifocal loss on ten detectors: targets, divisors and what each option changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import giou, iou
from poise.losses import normalizer, num_positives, num_positives_clamped
from poise.models import create_model
from poise.recipes import get_recipe
from poise.recipes.articles import TABLES
from poise.structures import Assignment, Batch, GroundTruth, Match, Progress, RefinedPredictions, StepOutput

SMALL: dict[str, Any] = {"channels": 16, "depth": 1}
COUNTS: dict[str, Callable[[Assignment], Tensor]] = {  # what each divides its class loss by, which stays its own
    "retinanet": num_positives_clamped,
    "atss": num_positives_clamped,
    "gfl": num_positives_clamped,
    "reppoints": num_positives_clamped,
    "fcos": num_positives,
    "vfnet": num_positives,
    "paa": lambda assignment: normalizer(assignment.positive.sum(), float(len(assignment.positive))),
    "foveabox": lambda assignment: normalizer(num_positives(assignment) + len(assignment.positive)),
}
TABLE_1 = ("retinanet", "atss", "reppoints", "foveabox")
ELEMENTS = {"quality_focal": losses.quality_focal, "varifocal": losses.varifocal}


def scene() -> tuple[Tensor, GroundTruth]:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 2])}, {"boxes": boxes[:1] + 9, "labels": torch.tensor([1])}]
    return pixels, GroundTruth.collate(targets, [(64, 64)] * 2)


def step(family: str, **options: Any) -> tuple[Any, StepOutput, Match, GroundTruth]:
    torch.manual_seed(0)
    model = create_model(f"{family}_mnv3s_fpn", 3, **{**SMALL, **options}).train()
    pixels, truth = scene()
    found = model.network(Batch(pixels, truth, torch.arange(2)), Progress.final())
    return model, found, found.matches["dense"], truth


def overlaps(boxes: Tensor, assignment: Assignment, truth: GroundTruth, one: Callable[..., Tensor] = iou) -> Tensor:
    """IoU of each positive's box with its object, 0 elsewhere, written as a loop."""
    found = torch.zeros(assignment.positive.shape)
    for image, prior in assignment.positive.nonzero().tolist():
        found[image, prior] = one(boxes[image, prior].detach(), truth.boxes[image, assignment.index[image, prior]])
    return found


def at_classes(values: Tensor, assignment: Assignment, truth: GroundTruth, classes: int = 3) -> Tensor:
    targets = torch.zeros(*values.shape, classes)
    for image, prior in assignment.positive.nonzero().tolist():
        targets[image, prior, int(truth.labels[image, assignment.index[image, prior]])] = values[image, prior]
    return targets


@pytest.mark.parametrize("family", COUNTS)
def test_a_step_trains_the_iou_of_the_final_box(family: str) -> None:
    for name, element in ELEMENTS.items():
        model, found, match, truth = step(family, class_loss=name)
        predictions, assignment = match.predictions, match.assignment
        assert isinstance(assignment, Assignment) and assignment.positive.any()
        targets = at_classes(overlaps(predictions.boxes, assignment, truth), assignment, truth)
        each = element(predictions.logits, targets)
        each = each if family == "vfnet" else each[~assignment.ignored]
        torch.testing.assert_close(found.losses["loss_cls"], each.sum() / COUNTS[family](assignment))
        found.total.backward()
        for parameter in model.parameters():
            assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all())


@pytest.mark.parametrize("family", ["fcos", "gfl", "paa"])
def test_the_focal_loss_has_hard_labels(family: str) -> None:
    _, found, match, truth = step(family, class_loss="focal")
    assignment = match.assignment
    assert isinstance(assignment, Assignment)
    targets = at_classes(assignment.positive.float(), assignment, truth)
    each = losses.focal(match.predictions.logits, targets)[~assignment.ignored]
    torch.testing.assert_close(found.losses["loss_cls"], each.sum() / COUNTS[family](assignment))


def test_class_losses_of_tood_weigh_its_alignment() -> None:
    for name in ("focal", "quality_focal", "varifocal"):
        _, found, match, truth = step("tood", depth=2, class_loss=name)
        assignment, p = match.assignment, match.predictions.scores()
        assert isinstance(assignment, Assignment) and assignment.positive.any()
        label = assignment.positive.float() if name == "focal" else assignment.quality * assignment.positive
        t = at_classes(label, assignment, truth)
        entropy = binary_cross_entropy(p, t, reduction="none")
        factor = {
            "focal": torch.where(t > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2),
            "quality_focal": (t - p).abs() ** 2,
            "varifocal": torch.where(t > 0, t, 0.75 * p**2),
        }[name]
        wanted = (factor * entropy)[~assignment.ignored].sum() / t.sum().clamp(min=1)
        torch.testing.assert_close(found.losses["loss_cls"], wanted, rtol=1e-4, atol=1e-6)


def test_objectness_losses_of_yolox() -> None:
    for name in ("cross_entropy", "focal", "quality_focal", "varifocal"):
        _, found, match, truth = step("yolox", objectness_loss=name)
        assignment, logits = match.assignment, match.predictions.quality
        assert isinstance(assignment, Assignment) and assignment.positive.any()
        hard = name in ("cross_entropy", "focal")
        t = assignment.positive.float() if hard else overlaps(match.predictions.boxes, assignment, truth)
        element = {**ELEMENTS, "focal": losses.focal}.get(name)
        each = element(logits, t) if element else binary_cross_entropy_with_logits(logits, t, reduction="none")
        wanted = each[~assignment.ignored].sum() / assignment.positive.sum()
        torch.testing.assert_close(found.losses["loss_obj"], wanted)
        entropy = binary_cross_entropy_with_logits(logits, t, reduction="none")
        weights = match.criterion.weights(match.predictions, assignment, truth)
        assert weights.background is not None
        weighted = (weights.background * entropy).sum() * assignment.positive.sum()
        torch.testing.assert_close(weighted, each[assignment.negative].sum())


@pytest.mark.parametrize("family", TABLE_1)
def test_only_the_class_loss_changes(family: str) -> None:
    terms = [step(family, class_loss=choice)[1].losses for choice in ("focal", "varifocal")]
    for name, loss in terms[0].items():
        assert torch.equal(loss, terms[1][name]) == (name != "loss_cls")


@pytest.mark.parametrize("family", [*COUNTS, "tood"])
def test_other_names_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match="class_loss='hinge': one of focal, quality_focal, varifocal"):
        create_model(f"{family}_mnv3s_fpn", 3, class_loss="hinge", **SMALL)


@pytest.mark.parametrize("family", TABLE_1)
def test_recipe(family: str) -> None:
    middle = "r50_gn_fpn" if family == "reppoints" else "r50_fpn"
    recipe = get_recipe(f"{family}_{middle}_varifocal_1x")
    assert recipe.model.options == {"class_loss": "varifocal"}
    assert recipe.schedule.warmup_ratio == (0.001 if family == "atss" else 0.1)


def vfnet_losses(found: StepOutput, match: Match, truth: GroundTruth, **form: Any) -> dict[str, Tensor]:
    """VarifocalNet's losses (article, eq. 2 and 3), written literally."""
    assignment, predictions = match.assignment, match.predictions
    assert isinstance(assignment, Assignment) and isinstance(predictions, RefinedPredictions)
    refined = overlaps(predictions.boxes, assignment, truth)
    own = overlaps(predictions.initial_boxes, assignment, truth)
    q, p = at_classes(refined, assignment, truth), predictions.logits.sigmoid()
    weight = torch.where(q > 0, q if form["iou_weighted"] else 1.0, form["alpha"] * p ** form["gamma"])
    count = assignment.positive.sum()
    terms = {"loss_cls": form["class_weight"] * (weight * binary_cross_entropy(p, q, reduction="none")).sum() / count}
    for name, boxes, iou_weight, factor in (
        ("loss_bbox", predictions.initial_boxes, refined if form["article"] else own, form["initial_weight"]),
        ("loss_bbox_rf", predictions.boxes, refined, form["refined_weight"]),
    ):
        distance = 1 - overlaps(boxes, assignment, truth, giou)
        divisor = count if form["article"] else iou_weight.sum().clamp(min=1)
        terms[name] = factor * (iou_weight * distance)[assignment.positive].sum() / divisor
    return terms


@pytest.mark.parametrize("article", [False, True])
def test_every_factor_of_varifocalnet_is_an_option(article: bool) -> None:
    form = {"alpha": 0.5, "gamma": 1.5, "iou_weighted": not article}
    form |= {"class_weight": 0.7, "initial_weight": 0.9, "refined_weight": 3.0}
    names = {"box_normalizer": "positives", "initial_iou": "refined"} if article else {}
    _, found, match, truth = step("vfnet", **form, **names)
    wanted = vfnet_losses(found, match, truth, **form, article=article)
    for name, loss in found.losses.items():
        torch.testing.assert_close(loss, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"class_loss": "quality_focal", "alpha": 0.5}, "alpha=0.5 excludes class_loss='quality_focal'"),
        ({"class_loss": "focal", "iou_weighted": False}, "iou_weighted=False excludes class_loss='focal'"),
        ({"refine": False, "refined_weight": 1.0}, "refine=False excludes refined_weight=1.0"),
        ({"refine": False, "initial_iou": "refined"}, "there is no refined box"),
        ({"box_normalizer": "objects"}, "box_normalizer='objects': one of iou, positives"),
        ({"initial_iou": "anchor"}, "initial_iou='anchor': one of initial, refined"),
        ({"gamma": -1.0}, "neither can be negative"),
        ({"initial_weight": -1.0}, "cannot be negative"),
        ({"criterion": "varifocal(refined_weight=1.0)", "alpha": 0.5}, "alpha=0.5 belongs to the criterion"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        create_model("vfnet_mnv3s_fpn", 3, **SMALL, **options)


def test_the_table_has_three_losses_on_ten_detectors() -> None:
    rows = TABLES["varifocal_losses"].ablation.variants
    models = {row.changes["model.name"].split("_")[0] for row in rows}
    assert models == {*COUNTS, "tood", "yolox"} and len(rows) == 30
