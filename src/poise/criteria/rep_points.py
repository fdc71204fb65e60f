"""RepPoints' losses (Yang et al. 2019, section 4.2): focal classes, smooth L1 of the sides of both boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.assign.rep_points import NearestPoint
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    hard_label,
    loss_weights_from_logits,
    masked_sum,
    num_positives_clamped,
)
from poise.structures import Assignment, GroundTruth, Priors, RefinedPredictions


@dataclass(frozen=True)
class RepPointsCriterion:
    """Classes and second boxes follow the assignment, first boxes that of ``initial_assigner``.

    Sides are compared in units of ``unit`` strides. Every term is divided by its own positives, at least one an image;
    they are averaged over ranks, so that the result does not depend on their number (the original does not).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[RefinedPredictions, Assignment, Tensor], Tensor | float] = (
        hard_label  # of positives, in [0,1]
    )
    initial_assigner: Callable[[RefinedPredictions, GroundTruth], Assignment] = NearestPoint()
    initial_weight: float = 0.5
    refined_weight: float = 1.0
    unit: float = 4.0
    beta: float = 0.11  # of the smooth L1 loss

    def __call__(
        self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        priors, first = predictions.priors, self.initial_assigner(predictions, truth)
        targets = self.targets(predictions, assignment, truth)
        first_weights = first.positive * (self.initial_weight / num_positives_clamped(first))
        return {
            "loss_cls": masked_sum(
                self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_pts_init": masked_sum(self._box_loss(predictions.initial_boxes, priors, first, truth), first_weights),
            "loss_pts_refine": masked_sum(
                self._box_loss(predictions.boxes, priors, assignment, truth), targets.box_weights
            ),
        }

    def targets(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are taught of classes and second boxes, and how much of it counts."""
        count = num_positives_clamped(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / count,
            box_weights=assignment.positive * (self.refined_weight / count),
        )

    def weights(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and second boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, self.class_loss(predictions.logits, targets.class_targets), predictions.logits
        )

    def _box_loss(self, boxes: Tensor, priors: Priors, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Sum over the four sides, (B,N)."""
        unit = self.unit * priors.strides[:, None]
        return losses.smooth_l1(boxes / unit, assignment.boxes(truth) / unit, self.beta).sum(2)
