"""TOOD's losses (Feng et al. 2021): class targets are the task alignment of score and box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import centerness
from poise.criteria.protocol import Targets, loss_weights
from poise.losses import masked_sum, normalizer
from poise.protocols import LossWeights
from poise.structures import Assignment, GeometricPredictions, GroundTruth


@dataclass(frozen=True)
class TaskAlignedCriterion:
    """Quality focal loss of the normalized alignment (the assigner's ``quality``), and GIoU loss weighted by it.

    Args:
        beta: exponent of the quality focal loss.
    """

    beta: float = 2.0

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        return _losses(predictions, assignment, truth, self)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        class_targets = assignment.class_targets(truth, predictions.logits.shape[2], assignment.quality)
        return _targets(assignment, class_targets, assignment.quality * assignment.positive)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return _weights(predictions, assignment, truth, self)

    def class_loss(self, log_scores: Tensor, targets: Tensor) -> Tensor:
        """Return the elementwise class loss (B,N,C) of ln of the scores."""
        return (targets - log_scores.exp()).abs() ** self.beta * _cross_entropy(log_scores, targets)


@dataclass(frozen=True)
class InitialCriterion:
    """Losses of the first epochs: focal loss of the same scores, and GIoU loss weighted by centerness.

    Args:
        alpha, gamma: of the focal loss.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        return _losses(predictions, assignment, truth, self)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        class_targets = assignment.class_targets(truth, predictions.logits.shape[2])
        weight = centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive
        return _targets(assignment, class_targets, weight)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return _weights(predictions, assignment, truth, self)

    def class_loss(self, log_scores: Tensor, targets: Tensor) -> Tensor:
        """Return the elementwise class loss (B,N,C) of ln of the scores."""
        error = (targets - log_scores.exp()).abs()
        alpha = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return alpha * error**self.gamma * _cross_entropy(log_scores, targets)


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
