"""RepPoints' losses (Yang et al. 2019, section 4.2): focal classes, smooth L1 of the sides of both boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.assign.rep_points import NearestPoint
from poise.criteria.protocol import hard_label, masked_sum, positives_of_images
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
from poise.structures import Assignment, GroundTruth, Priors, RefinedPredictions


@dataclass(frozen=True)
class RepPointsCriterion:
    """Classes and second boxes follow the assignment, first boxes that of ``first_assigner``.

    Sides are compared in units of ``unit`` strides. Every term is divided by its own positives, at least one an image;
    they are averaged over ranks, so that the result does not depend on their number (the original does not).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[RefinedPredictions, Assignment, Tensor], Tensor | float] = (
        hard_label  # of positives, in [0,1]
    )
    first_assigner: Callable[[RefinedPredictions, GroundTruth], Assignment] = NearestPoint()
    first_weight: float = 0.5
    refined_weight: float = 1.0
    unit: float = 4.0
    beta: float = 0.11  # of the smooth L1 loss

    def __call__(
        self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        priors, first = predictions.priors, self.first_assigner(predictions, truth)
        taught = self.taught(predictions, assignment, truth)
        first_weights = first.positive * (self.first_weight / positives_of_images(first))
        return {
            "loss_cls": taught.class_sum(self.class_loss(predictions.logits, taught.targets)),
            "loss_pts_init": masked_sum(self._box_loss(predictions.initial_boxes, priors, first, truth), first_weights),
            "loss_pts_refine": masked_sum(self._box_loss(predictions.boxes, priors, assignment, truth), taught.boxes),
        }

    def taught(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught of classes and second boxes, and how much of it counts."""
        count = positives_of_images(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2], soft_label),
            classes=(~assignment.ignored).float() / count,
            boxes=assignment.positive * (self.refined_weight / count),
        )

    def weights(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and second boxes."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, self.class_loss(predictions.logits, taught.targets), predictions.logits)

    def _box_loss(self, boxes: Tensor, priors: Priors, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Sum over the four sides, (B,N)."""
        unit = self.unit * priors.strides[:, None]
        return losses.smooth_l1(boxes / unit, assignment.boxes(truth) / unit, self.beta).sum(2)
