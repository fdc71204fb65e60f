"""TOOD's losses (Feng et al. 2021, eq. 7 and 8): classes and boxes weighted by how well score and box agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import centerness
from poise.criteria.protocol import LossWeights, Targets, loss_weights, masked_sum, normalizer
from poise.structures import Assignment, GeometricPredictions, GroundTruth


def _entropy(log_scores: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of scores given by their logarithm, finite at 0 and 1."""
    rest = torch.log1p(-log_scores.exp().clamp(max=1 - 1e-7))
    return -(targets * log_scores + (1 - targets) * rest)


def _terms(
    predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth, class_loss: Tensor, targets: Targets
) -> dict[str, Tensor]:
    box_loss = losses.giou(predictions.boxes, assignment.boxes(truth))
    return {
        "loss_cls": masked_sum(class_loss.sum(2), targets.class_weights),
        "loss_bbox": masked_sum(box_loss, targets.box_weights),
    }


def _targets(assignment: Assignment, targets: Tensor, weights: Tensor) -> Targets:
    """Classes are divided by the sum of their targets (B,N,C), boxes by that of their weights (B,N)."""
    classes = (~assignment.ignored).float() / normalizer(targets.sum())
    return Targets(targets, classes, weights * (2.0 / normalizer(weights.sum())))


@dataclass(frozen=True)
class TaskAlignedCriterion:
    """Scores are taught the assigner's ``quality`` (the normalized alignment), which weighs the boxes too."""

    beta: float = 2.0  # of the quality focal loss

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        class_loss = self._class_loss(predictions.log_scores(), targets.class_targets)
        return _terms(predictions, assignment, truth, class_loss, targets)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        targets = assignment.class_targets(truth, predictions.logits.shape[2], assignment.quality)
        return _targets(assignment, targets, assignment.quality * assignment.positive)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        targets, log_scores = self.targets(predictions, assignment, truth), predictions.log_scores()
        loss = self._class_loss(log_scores, targets.class_targets)
        return loss_weights(targets, loss, _entropy(log_scores, targets.class_targets))

    def _class_loss(self, log_scores: Tensor, targets: Tensor) -> Tensor:
        return (targets - log_scores.exp()).abs() ** self.beta * _entropy(log_scores, targets)


@dataclass(frozen=True)
class InitialCriterion:
    """Of the first epochs: the focal loss of the same scores, boxes weighted by centerness."""

    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        class_loss = self._class_loss(predictions.log_scores(), targets.class_targets)
        return _terms(predictions, assignment, truth, class_loss, targets)

    def targets(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        targets = assignment.class_targets(truth, predictions.logits.shape[2])
        central = centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive
        return _targets(assignment, targets, central)

    def weights(self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        targets, log_scores = self.targets(predictions, assignment, truth), predictions.log_scores()
        loss = self._class_loss(log_scores, targets.class_targets)
        return loss_weights(targets, loss, _entropy(log_scores, targets.class_targets))

    def _class_loss(self, log_scores: Tensor, targets: Tensor) -> Tensor:
        miss = (targets - log_scores.exp()).abs()
        share = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        return share * miss**self.gamma * _entropy(log_scores, targets)
