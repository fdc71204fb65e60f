"""RepPoints' losses (Yang et al. 2019, section 4.2): focal classes, smooth L1 of the sides of both boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.assign.rep_points import NearestPoint
from poise.criteria.protocol import certain, masked_sum, positives_of_images
from poise.structures import Assignment, GroundTruth, Priors, RefinedPredictions


@dataclass(frozen=True)
class RepPointsCriterion:
    """Classes and second boxes follow the assignment, first boxes that of ``first_assigner``.

    Sides are compared in units of ``unit`` strides. Every term is divided by its own positives, at least one an image;
    they are averaged over ranks, so that the result does not depend on their number (the original does not).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[RefinedPredictions, Assignment, Tensor], Tensor | float] = certain  # of positives, in [0,1]
    first_assigner: Callable[[RefinedPredictions, GroundTruth], Assignment] = NearestPoint()
    first_weight: float = 0.5
    refined_weight: float = 1.0
    unit: float = 4.0
    beta: float = 0.11  # of the smooth L1 loss

    def __call__(
        self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        priors, first = predictions.priors, self.first_assigner(predictions, truth)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        targets = assignment.targets(truth, predictions.logits.shape[2], soft_label)
        class_loss = self.class_loss(predictions.logits, targets).sum(2)
        class_sum = masked_sum(class_loss, (~assignment.ignored).float())
        return {
            "loss_cls": class_sum / positives_of_images(assignment),
            "loss_pts_init": self.first_weight * self._box_loss(predictions.initial_boxes, priors, first, truth),
            "loss_pts_refine": self.refined_weight * self._box_loss(predictions.boxes, priors, assignment, truth),
        }

    def _box_loss(self, boxes: Tensor, priors: Priors, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Sum over the four sides of positives, divided by their number."""
        unit = self.unit * priors.strides[:, None]
        loss = losses.smooth_l1(boxes / unit, assignment.boxes(truth) / unit, self.beta).sum(2)
        return masked_sum(loss, assignment.positive.float()) / positives_of_images(assignment)
