"""TOOD's losses (Feng et al. 2021): class targets are the task alignment of score and box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import centerness
from poise.criteria.matched_labels import is_matched_label
from poise.criteria.protocol import Targets, loss_weights
from poise.losses import masked_sum, normalizer
from poise.protocols import LossWeights
from poise.structures import Assignment, GeometricPredictions, GroundTruth

ScoreLoss = Callable[[Tensor, Tensor], Tensor]  # of ln of the scores (B,N,C) and class targets


def qfl_of_scores(log_scores: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss of scores given by their logarithm."""
    return (targets - log_scores.exp()).abs() ** beta * _cross_entropy(log_scores, targets)


def focal_of_scores(log_scores: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of scores given by their logarithm; ``targets`` are 0 or 1."""
    error = (targets - log_scores.exp()).abs()
    return (alpha * targets + (1 - alpha) * (1 - targets)) * error**gamma * _cross_entropy(log_scores, targets)


def vfl_of_scores(
    log_scores: Tensor, targets: Tensor, alpha: float = 0.75, gamma: float = 2.0, *, iou_weighted: bool = True
) -> Tensor:
    """Return the varifocal loss of scores given by their logarithm."""
    weight = losses.varifocal_weight(log_scores.exp(), targets, alpha, gamma, iou_weighted=iou_weighted)
    return weight * _cross_entropy(log_scores, targets)


@dataclass(frozen=True)
class TaskAlignedCriterion:
    """Class loss of the normalized alignment (the assigner's ``quality``), and GIoU loss weighted by it.

    Args:
        class_loss: elementwise loss of ln of the scores and of class targets (B,N,C).
        hard_labels: class targets of positives are 1 instead of their alignment.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    class_loss: ScoreLoss = qfl_of_scores
    hard_labels: bool = False
    object_balance: float = 0.0

    def __post_init__(self) -> None:
        if is_matched_label(self.class_loss):
            name = type(self.class_loss).__name__
            raise ValueError(f"the class target is the alignment of score and box, {name} makes its own of the IoU")

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        return _losses(predictions, assignment, truth, self)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        label = 1.0 if self.hard_labels else assignment.quality
        class_targets = assignment.class_targets(truth, predictions.logits.shape[2], label)
        targets = _targets(assignment, class_targets, assignment.quality * assignment.positive)
        return targets.balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return _weights(predictions, assignment, truth, self)


@dataclass(frozen=True)
class InitialCriterion:
    """Losses of the first epochs: focal loss of the same scores, and GIoU loss weighted by centerness.

    Args:
        class_loss: elementwise loss of ln of the scores and of class targets (B,N,C).
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    class_loss: ScoreLoss = focal_of_scores
    object_balance: float = 0.0

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        return _losses(predictions, assignment, truth, self)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        class_targets = assignment.class_targets(truth, predictions.logits.shape[2])
        weight = centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive
        return _targets(assignment, class_targets, weight).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return _weights(predictions, assignment, truth, self)


def _losses(
    predictions: GeometricPredictions,
    assignment: Assignment,
    truth: GroundTruth,
    criterion: TaskAlignedCriterion | InitialCriterion,
) -> dict[str, Tensor]:
    targets = criterion.targets(predictions, assignment, truth)
    class_loss = criterion.class_loss(predictions.log_scores(), targets.class_targets).sum(2)
    box_loss = losses.giou(predictions.boxes, assignment.boxes(truth))
    return {
        "loss_cls": masked_sum(class_loss, targets.class_weights),
        "loss_bbox": masked_sum(box_loss, targets.box_weights),
    }


def _weights(
    predictions: GeometricPredictions,
    assignment: Assignment,
    truth: GroundTruth,
    criterion: TaskAlignedCriterion | InitialCriterion,
) -> LossWeights:
    targets, log_scores = criterion.targets(predictions, assignment, truth), predictions.log_scores()
    class_loss = criterion.class_loss(log_scores, targets.class_targets)
    return loss_weights(targets, class_loss, _cross_entropy(log_scores, targets.class_targets))


def _targets(assignment: Assignment, class_targets: Tensor, weight: Tensor) -> Targets:
    """Divide the class loss by the sum of its targets (B,N,C), and the box loss by that of its weights (B,N)."""
    class_weights = (~assignment.ignored).float() / normalizer(class_targets.sum())
    return Targets(class_targets, class_weights, weight * (2.0 / normalizer(weight.sum())))


def _cross_entropy(log_scores: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross entropy of scores given by their logarithm, finite at 0 and 1."""
    log_rest = torch.log1p(-log_scores.exp().clamp(max=1 - 1e-7))
    return -(targets * log_scores + (1 - targets) * log_rest)
