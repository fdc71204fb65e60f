"""Losses of matched labels against their formulas, one prior and class at a time, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.scenes import CLASSES, predictions_of, truth_of

from poise.assign import ATSS, Hungarian
from poise.boxes import cxcywh_to_xyxy, iou, normalize_boxes
from poise.criteria import SetCriterion, atss_criterion
from poise.criteria.matched_labels import (
    IoUAware,
    Matchability,
    MatchedLabel,
    PositionSupervised,
    matched_iou,
    matched_iou_of_normalized_boxes,
)
from poise.models import create_model
from poise.models.files import build, describe
from poise.structures import Assignment, GroundTruth, Predictions, QualityPredictions, QueryPredictions

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "encoder_layers": 1, "decoder_layers": 2}
SMALL |= {"queries": 8, "backbone": "test_resnet"}
LOSSES = [
    *(Matchability(), Matchability(gamma=2.5, detach_factor=False)),
    *(IoUAware(), IoUAware(alpha=0.6, gamma=1.5, floor=0.2)),
    *(PositionSupervised(), PositionSupervised(power=1.0, alpha=0.4, gamma=1.0)),
]


def slow_targets(loss: MatchedLabel, p: list[list[float]], u: dict[tuple[int, int], float]) -> dict[Any, float]:
    """The targets of one image, from scores [prior][class] and the IoUs of matched pairs of prior and class."""
    found = {}
    for (n, c), overlap in u.items():
        if isinstance(loss, Matchability):
            found[n, c] = overlap**loss.gamma
        elif isinstance(loss, IoUAware):
            found[n, c] = max(loss.floor, p[n][c] ** loss.alpha * overlap ** (1 - loss.alpha))
        elif isinstance(loss, PositionSupervised):
            found[n, c] = overlap**loss.power / max(one**loss.power for one in u.values())
    return found


def slow_loss(loss: Any, p: list[list[float]], u: dict[tuple[int, int], float]) -> float:
    targets, total = slow_targets(loss, p, u), 0.0
    for n, scores in enumerate(p):
        for c, score in enumerate(scores):
            t = targets.get((n, c), 0.0)
            entropy = -t * math.log(score) - (1 - t) * math.log(1 - score)
            factor = 1.0 if (n, c) in u else score**loss.gamma
            if isinstance(loss, PositionSupervised):
                factor = loss.alpha * abs(t - score) ** loss.gamma if (n, c) in u else (1 - loss.alpha) * factor
            total += factor * entropy
    return total


def overlaps(predictions: Predictions, assignment: Assignment, truth: GroundTruth, image: int) -> dict[Any, float]:
    """The IoU of each matched pair of prior and class."""
    found = {}
    for n in assignment.positive[image].nonzero()[:, 0].tolist():
        g = int(assignment.index[image, n])
        if isinstance(predictions, QueryPredictions):
            thing = cxcywh_to_xyxy(normalize_boxes(truth.boxes, truth.sizes)[image, g].double())
            overlap = iou(cxcywh_to_xyxy(predictions.normalized_boxes[image, n].double()), thing)
        else:
            overlap = iou(predictions.boxes[image, n].double(), truth.boxes[image, g].double())
        found[n, int(truth.labels[image, g])] = max(1e-6, float(overlap))
    return found


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("kind", [QueryPredictions, QualityPredictions])
def test_formulas(loss: MatchedLabel, kind: type[Predictions]) -> None:
    predictions, truth = predictions_of(kind, 3, 0), truth_of([7, 0, 2], 1)
    if isinstance(predictions, QueryPredictions):
        criterion: Any = SetCriterion(loss, matched_iou_of_normalized_boxes)
        assignment = Hungarian()(predictions, truth)
        scale = 2.0 / int(assignment.positive.sum())
    else:
        criterion = replace(atss_criterion(), class_loss=loss, soft_label=matched_iou)
        assignment = ATSS(5)(predictions, truth)
        scale = 1.0 / int(assignment.positive.sum(1).clamp(min=1).sum())
    p = predictions.logits.double().sigmoid().tolist()
    wanted = sum(slow_loss(loss, p[i], overlaps(predictions, assignment, truth, i)) for i in range(3))
    found = criterion(predictions, assignment, truth)["loss_cls"]
    assert float(found) == pytest.approx(wanted * scale, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES[::2], ids=repr)
def test_weights_of_the_lab_are_those_of_the_loss(loss: MatchedLabel) -> None:
    predictions, truth = predictions_of(QueryPredictions, 2, 3), truth_of([6, 3], 4)
    assignment = Hungarian()(predictions, truth)
    criterion = SetCriterion(loss, matched_iou_of_normalized_boxes)
    weights = criterion.weights(predictions, assignment, truth)
    p = predictions.logits.double().sigmoid()
    total = -(weights.positive * p.log() + weights.negative * (1 - p).log()).sum()
    wanted = float(criterion(predictions, assignment, truth)["loss_cls"])
    assert float(total) == pytest.approx(wanted, rel=1e-4)
    assert (weights.positive > 0).sum() == assignment.positive.sum() == 9


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[2]], ids=repr)
def test_targets_have_no_gradient(loss: MatchedLabel) -> None:
    logits = torch.tensor([[[0.3, -1.0]]], requires_grad=True)
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]], requires_grad=True)
    assignment = Assignment(*(torch.tensor([[value]]) for value in (0, True, False, 0.0)))
    shell = predictions_of(QueryPredictions, 1, 0).take(torch.zeros(1, 1, dtype=torch.int64))
    label = matched_iou(replace(shell, boxes=boxes), assignment, torch.tensor([[[0.0, 0.0, 8.0, 6.0]]]))
    assert label.tolist() == [[0.75]] and not label.requires_grad
    loss(logits, torch.tensor([[[0.75, 0.0]]])).sum().backward()
    p = logits.detach().double().sigmoid()[0, 0]
    t = 0.75**1.5 if isinstance(loss, Matchability) else float(p[0]) ** 0.25 * 0.75**0.75
    q, gamma = float(p[1]), 1.5 if isinstance(loss, Matchability) else 2.0
    other = q ** (gamma + 1)  # of p^gamma BCE(p, 0), the factor without gradient
    if isinstance(loss, IoUAware):
        other -= gamma * q**gamma * (1 - q) * math.log(1 - q)
    assert logits.grad is not None
    assert logits.grad[0, 0].tolist() == pytest.approx([float(p[0]) - t, other], rel=1e-5)


def test_a_match_without_overlap_keeps_its_loss() -> None:
    boxes = torch.tensor([[[50.0, 50.0, 60.0, 60.0], [torch.nan, 0, 0, 0]]])
    shell = predictions_of(QueryPredictions, 1, 0).take(torch.tensor([[0, 1]]))
    first = torch.tensor([[True, False]])
    assignment = Assignment(torch.zeros(1, 2, dtype=torch.int64), first, ~first & first, torch.zeros(1, 2))
    label = matched_iou(replace(shell, boxes=boxes), assignment, torch.tensor([[[0.0, 0.0, 8.0, 6.0]]]))
    assert label.tolist() == [[pytest.approx(1e-6), 0.0]]  # a prior that is not matched may hold NaN
    targets = torch.stack((label, torch.zeros_like(label)), 2)
    found = Matchability()(torch.zeros(1, 2, 2), targets)
    assert found[0, 0, 0] > 2 * found[0, 1, 0]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("atss_r18_fpn", {"class_loss": "matchability(gama=2)"}, "'matchability' has no option 'gama', did you mean"),
        ("dino_r18", {"class_loss": "hinge"}, "one of focal, quality_focal, varifocal, matchability, iou_aware"),
        ("dino_r18", {"class_loss": "iou_aware(alpha=2)"}, "alpha in \\[0,1\\]"),
        ("fcos_r18_fpn", {"class_loss": "matchability(gamma=0.5)"}, "gamma is at least 1"),
        ("tood_r18_fpn", {"class_loss": "matchability"}, "one of focal, quality_focal, varifocal"),
        ("tood_r18_fpn", {"criterion": "task_aligned(class_loss=matchability)"}, "target is the alignment of score"),
        ("ota_r18_fpn", {"criterion": "ota(class_loss=matchability())"}, "the class target is 1"),
        ("gflv2_r18_fpn", {"criterion": "gflv2(class_loss=matchability())"}, "score of this head is a product"),
        ("vfnet_r18_fpn", {"class_loss": "matchability", "gamma": 2.0}, "write them into its text"),
        ("fcos_r18_fpn", {"criterion": "fcos(class_loss=matchability)"}, "add soft_label=matched_iou"),
        ("dino_r18", {"criterion": "set_prediction(class_loss=iou_aware)"}, "soft_label=matched_iou_of_normalized"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        create_model(name, 3, **({"channels": 16} | given))


def test_a_model_file_rebuilds_loss_and_matching() -> None:
    given = {"class_loss": "iou_aware(alpha=0.5)", "assigner": "hungarian(position_power=0.5)"}
    model = create_model("deformable_detr_r18", 3, **SMALL, **given)
    for one in (model, build(describe(model))):
        assert one.network.criterion == SetCriterion(IoUAware(alpha=0.5), matched_iou_of_normalized_boxes)
        assert one.network.assigner == one.network.group_assigner == Hungarian(position_power=0.5)
    dense = create_model(
        "gfl_r18_fpn", CLASSES, channels=16, depth=1, backbone="test_resnet", class_loss="matchability"
    )
    assert build(describe(dense)).network.branch.criterion.class_loss == Matchability()
