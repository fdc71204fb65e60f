"""Equalization loss v2 for the second stage (Tan et al. 2021, arXiv 2012.08548, gradient guided reweighing).

Every class has a sigmoid. The ratio of its accumulated gradients of positives and of negatives, g, gives the weights of
the next step: f(g) = 1 / (1 + exp(-gamma (g - mu))) for negatives and 1 + alpha (1 - f(g)) for positives. The gradients
are those with respect to the logits, |p - t| times the weight, summed over the regions of all processes. The first step
has the weights 1. One more sigmoid is the background, with the weight 1; a score is p_c (1 - p_background).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.criteria.class_totals import ClassTotals
from poise.criteria.region import RegionCriterion
from poise.losses import binary_cross_entropy
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, RegionPredictions

SMALL = 1e-10  # added to the divisor, as in the published code


@dataclass(frozen=True)
class EqualizationV2:
    """The weights of equalization loss v2.

    Args:
        gamma: slope of f.
        mu: ratio of the gradients at which f is 0.5.
        alpha: by how much the weight of positives rises at most.
    """

    gamma: float = 12.0
    mu: float = 0.8
    alpha: float = 4.0

    def __post_init__(self) -> None:
        if min(self.gamma, self.alpha) < 0:
            raise ValueError(f"{self}: gamma and alpha are not below 0")

    @torch.no_grad()
    def class_weights(self, totals: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of positives and of negatives (C,), from the totals of their gradients (C,2)."""
        positive, negative = totals.unbind(1)
        lowered = (self.gamma * (positive / (negative + SMALL) - self.mu)).sigmoid()
        lowered = torch.where(totals.sum(1) > 0, lowered, 1.0)
        return 1 + self.alpha * (1 - lowered), lowered


@dataclass(frozen=True, eq=False)
class EqualizationV2Criterion:
    """The losses of the second stage with equalization loss v2; the head returns ``SigmoidRegionPredictions``.

    Args:
        criterion: the losses of boxes, the targets and the normalizers.
        loss: the weights.
        gradients: accumulated gradients of positives and of negatives, (C,2).
    """

    criterion: RegionCriterion
    loss: EqualizationV2
    gradients: ClassTotals

    def __call__(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``, and accumulate the gradients for the next step."""
        class_loss = self.class_loss(predictions, assignment, truth)
        losses = self.criterion.losses(predictions, assignment, truth, class_loss)
        self.gradients.add(self._gradients(predictions, assignment, truth))
        return losses

    def weights(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each region counts at its class, at others, and as background."""
        targets = self.criterion.targets(predictions, assignment, truth)
        raised, lowered = self.loss.class_weights(self.gradients.totals)
        labels, counted = targets.class_targets, targets.class_weights
        negative = counted[..., None] * (1 - labels) * lowered
        background = counted * assignment.negative
        return LossWeights(counted[..., None] * labels * raised, negative, targets.box_weights, background)

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the accumulated gradients of each class, and the weights of its positives and negatives."""
        positive, negative = self.gradients.totals.unbind(1)
        raised, lowered = self.loss.class_weights(self.gradients.totals)
        return {
            "positive_gradient": positive,
            "negative_gradient": negative,
            "positive_factor": raised,
            "negative_factor": lowered,
        }

    def class_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the class loss of each region (B,S), by which online hard example mining ranks."""
        targets = assignment.class_targets(truth, predictions.logits.shape[2]).to(predictions.logits.dtype)
        of_classes = self._class_weights(targets) * binary_cross_entropy(predictions.logits, targets)
        background = (~assignment.positive).to(targets.dtype)
        return of_classes.sum(2) + binary_cross_entropy(predictions.background, background)

    def _class_weights(self, targets: Tensor) -> Tensor:
        """Return the weight of each element of the loss, (B,S,C)."""
        raised, lowered = self.loss.class_weights(self.gradients.totals)
        return targets * raised + (1 - targets) * lowered

    @torch.no_grad()
    def _gradients(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the gradients of positives and of negatives in this step, (C,2)."""
        targets = assignment.class_targets(truth, predictions.logits.shape[2])
        gradient = (predictions.logits.sigmoid() - targets).abs() * self._class_weights(targets)
        gradient = torch.where(assignment.ignored[..., None], 0.0, gradient)
        return torch.stack(((gradient * targets).sum((0, 1)), (gradient * (1 - targets)).sum((0, 1))), 1)
