"""The set criterion against its formulas in float64, layer by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.scenes import CLASSES, predictions_of, truth_of
from torch import Tensor

from poise.assign import Hungarian
from poise.boxes import cxcywh_to_xyxy, giou, iou, normalize_boxes
from poise.criteria.set_prediction import SetCriterion, count_on_this_rank, iou_of_normalized_boxes
from poise.losses import quality_focal
from poise.structures import Assignment, GroundTruth, QueryPredictions, map_tensors


def stage(counts: list[int], seed: int) -> tuple[QueryPredictions, Assignment, GroundTruth]:
    predictions, truth = predictions_of(QueryPredictions, len(counts), seed), truth_of(counts, seed)
    return predictions, Hungarian()(predictions, truth), truth


def literal(predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, quality: bool) -> list[float]:
    """Unweighted class, L1 and GIoU losses."""
    count = max(1, int(assignment.positive.sum()))
    class_loss = distance = overlap_loss = 0.0
    normalized = normalize_boxes(truth.boxes, truth.sizes).double()
    for b, n in torch.cartesian_prod(
        torch.arange(len(truth.labels)), torch.arange(predictions.logits.shape[1])
    ).tolist():
        target = torch.zeros(CLASSES).double()
        g = int(assignment.index[b, n])
        if assignment.positive[b, n]:
            predicted = predictions.normalized_boxes[b, n].double()
            target[truth.labels[b, g]] = (
                float(iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(normalized[b, g]))) if quality else 1.0
            )
            distance += float((predicted - normalized[b, g]).abs().sum())
            overlap_loss += float(1 - giou(predictions.boxes[b, n].double(), truth.boxes[b, g].double()))
        p = predictions.logits[b, n].double().sigmoid()
        entropy = -(target * p.log() + (1 - target) * (1 - p).log())
        alpha = target * 0.25 + (1 - target) * 0.75
        weight = (target - p).abs() ** 2 * (1 if quality else alpha)
        class_loss += float((weight * entropy).sum())
    return [class_loss / count, distance / count, overlap_loss / count]


@pytest.mark.parametrize("quality", [False, True])
@pytest.mark.parametrize("counts", [[4, 2], [0, 3], [0, 0]])
def test_formulas(counts: list[int], quality: bool) -> None:
    predictions, assignment, truth = stage(counts, 1)
    criterion = SetCriterion(quality_focal, iou_of_normalized_boxes) if quality else SetCriterion()
    found = criterion(predictions, assignment, truth)
    wanted = literal(predictions, assignment, truth, quality)
    for name, value, weight in zip(("loss_cls", "loss_bbox", "loss_iou"), wanted, (2.0, 5.0, 2.0), strict=True):
        assert float(found[name]) == pytest.approx(value * weight, rel=1e-4)


def stack(*stages: Tensor) -> Tensor:
    return torch.cat(stages)


def test_layers_are_weighed_each_by_its_own_positives() -> None:
    first, second = stage([4, 2], 2), stage([4, 2], 3)
    predictions = replace(
        first[0],
        **{
            name: stack(getattr(first[0], name), getattr(second[0], name))
            for name in ("logits", "boxes", "normalized_boxes")
        },
    )
    fewer = replace(second[1], positive=second[1].positive & (torch.arange(second[1].positive.shape[1]) % 2 == 0))
    assignment = replace(first[1], **{k: stack(getattr(first[1], k), getattr(fewer, k)) for k in vars(fewer)})
    truth = map_tensors(first[2], lambda t: t)
    both = GroundTruth(*(stack(getattr(truth, k), getattr(second[2], k)) for k in vars(truth)))
    found = SetCriterion().layer_losses(predictions, assignment, both, ("d0.{}", "{}_last"))
    for name, value in SetCriterion()(*first).items():
        torch.testing.assert_close(found[f"d0.{name}"], value)
    for name, value in SetCriterion()(second[0], fewer, second[2]).items():
        torch.testing.assert_close(found[f"{name}_last"], value)


def test_ignored_queries_do_not_count() -> None:
    predictions, assignment, truth = stage([2, 1], 4)
    aside = (torch.arange(assignment.positive.shape[1]) >= 50).expand_as(assignment.positive)
    ignoring = replace(assignment, ignored=aside, positive=assignment.positive & ~aside)
    index = torch.arange(50).expand(2, -1)
    found = SetCriterion()(predictions, ignoring, truth)
    for name, value in SetCriterion()(predictions.take(index), ignoring.take(index), truth).items():
        torch.testing.assert_close(found[name], value)


def test_count_of_own_rank_is_at_least_one() -> None:
    assert count_on_this_rank(torch.tensor([0.0, 0.5, 7.0])).tolist() == [1.0, 1.0, 7.0]
