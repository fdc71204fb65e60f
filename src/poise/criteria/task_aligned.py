"""TOOD's losses (Feng et al. 2021, eq. 7 and 8): classes and boxes weighted by how well score and box agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import centerness
from poise.criteria.protocol import masked_sum
from poise.distributed import normalizer
from poise.structures import Assignment, GeometricPredictions, GroundTruth


def _entropy(log_scores: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of scores given by their logarithm, finite at 0 and 1."""
    rest = torch.log1p(-log_scores.exp().clamp(max=1 - 1e-7))
    return -(targets * log_scores + (1 - targets) * rest)


def _terms(
    predictions: GeometricPredictions,
    assignment: Assignment,
    truth: GroundTruth,
    class_loss: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> dict[str, Tensor]:
    """Classes (B,N,C) divided by the sum of their targets, boxes by that of their weights (B,N)."""
    class_sum = masked_sum(class_loss.sum(2), (~assignment.ignored).float())
    box_sum = masked_sum(losses.giou(predictions.boxes, assignment.boxes(truth)), weights)
    return {
        "loss_cls": class_sum / normalizer(targets.sum()),
        "loss_bbox": 2.0 * box_sum / normalizer(weights.sum()),
    }


@dataclass(frozen=True)
class AlignedCriterion:
    """Scores are taught the assigner's ``quality`` (the normalised alignment), which weighs the boxes too."""

    beta: float = 2.0  # of the quality focal loss

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        log_scores = predictions.log_scores()
        targets = assignment.targets(truth, predictions.logits.shape[2], assignment.quality)
        class_loss = (targets - log_scores.exp()).abs() ** self.beta * _entropy(log_scores, targets)
        weights = assignment.quality * assignment.positive
        return _terms(predictions, assignment, truth, class_loss, targets, weights)


@dataclass(frozen=True)
class StartingCriterion:
    """Of the first epochs: the focal loss of the same scores, boxes weighted by centerness."""

    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, predictions: GeometricPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        log_scores = predictions.log_scores()
        targets = assignment.targets(truth, predictions.logits.shape[2])
        miss = (targets - log_scores.exp()).abs()
        share = self.alpha * targets + (1 - self.alpha) * (1 - targets)
        class_loss = share * miss**self.gamma * _entropy(log_scores, targets)
        central = centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive
        return _terms(predictions, assignment, truth, class_loss, targets, central)
