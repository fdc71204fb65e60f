"""RepPoints' losses (Yang et al. 2019, section 4.2): focal loss of classes, smooth L1 loss of both boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.assign.rep_points import NearestPoint
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, masked_sum, num_positives_clamped
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, PairWeights, Priors, RefinedPredictions


@dataclass(frozen=True)
class InitialPointsCriterion:
    """Smooth L1 loss of the initial boxes at their own positives, divided by the number of these.

    Args:
        assigner: assigner of the initial boxes.
        weight: weight of the loss.
        unit: boxes are compared in units of this many strides.
        beta: of the smooth L1 loss.
    """

    assigner: Callable[[RefinedPredictions, GroundTruth], Assignment] = NearestPoint()
    weight: float = 0.5
    unit: float = 4.0
    beta: float = 0.11

    def __call__(
        self, predictions: RefinedPredictions, assignment: Assignment | PairWeights, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_pts_init``; ``assignment``, that of the refined boxes, is not used."""
        own = self.assigner(predictions, truth)
        loss = box_loss(predictions.initial_boxes, predictions.priors, own, truth, unit=self.unit, beta=self.beta)
        return {"loss_pts_init": masked_sum(loss, own.positive * (self.weight / num_positives_clamped(own)))}


@dataclass(frozen=True)
class RepPointsCriterion:
    """Losses of classes and refined boxes by the assignment, and of initial boxes by that of ``initial``.

    Each loss is divided by its own number of positives, at least one per image. These are averaged over ranks, so that
    the result does not depend on how many there are (in the original code it does).

    Args:
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        initial: criterion of the initial boxes.
        refined_weight: weight of the loss of refined boxes.
        unit: boxes are compared in units of this many strides.
        beta: of the smooth L1 loss.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[RefinedPredictions, Assignment, Tensor], Tensor | float] = hard_label
    initial: InitialPointsCriterion = InitialPointsCriterion()
    refined_weight: float = 1.0
    unit: float = 4.0
    beta: float = 0.11
    object_balance: float = 0.0

    def __call__(
        self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_pts_init`` and ``loss_pts_refine``."""
        targets = self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        refined_loss = box_loss(
            predictions.boxes, predictions.priors, assignment, truth, unit=self.unit, beta=self.beta
        )
        return {
            "loss_cls": masked_sum(class_loss, targets.class_weights),
            **self.initial(predictions, assignment, truth),
            "loss_pts_refine": masked_sum(refined_loss, targets.box_weights),
        }

    def targets(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the losses of classes and refined boxes."""
        normalizer = num_positives_clamped(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / normalizer,
            box_weights=assignment.positive * (self.refined_weight / normalizer),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: RefinedPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and refined boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)


def box_loss(
    boxes: Tensor, priors: Priors, assignment: Assignment, truth: GroundTruth, *, unit: float, beta: float
) -> Tensor:
    """Return the smooth L1 loss of boxes in units of ``unit`` strides, summed over x1, y1, x2, y2, (B,N)."""
    sides = unit * priors.strides[:, None]
    return losses.smooth_l1(boxes / sides, assignment.boxes(truth) / sides, beta).sum(2)
