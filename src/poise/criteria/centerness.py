"""FCOS's and ATSS's losses: focal loss of classes, centerness, box loss weighted by centerness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import centerness, with_least_sides
from poise.criteria.object_balance import balance_objects
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, masked_sums, normalizer, num_positives, num_positives_clamped
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class CenternessCriterion:
    """Class, box and centerness losses (FCOS: Tian et al. 2019, eq. 2).

    Args:
        count: normalizer of the class and centerness losses, a number of positives.
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        box_loss: elementwise loss of boxes (B,N,4).
        box_weight: weight of the box loss.
        min_normalizer: lower bound of the sum of centerness targets, by which the box loss is divided.
        floor: px; shorter sides of an object grow to it before the centerness of its priors is measured, so that priors
            next to a small object have a box loss and a score (``ATSS(floor=...)`` makes them positive).
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    count: Callable[[Assignment], Tensor] = num_positives
    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QualityPredictions, Assignment, Tensor], Tensor | float] = hard_label
    box_loss: Callable[[Tensor, Tensor], Tensor] = losses.giou
    box_weight: float = 1.0
    min_normalizer: float = 1e-6
    floor: float = 0.0
    object_balance: float = 0.0

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_centerness``."""
        targets = self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        box_loss = self.box_loss(predictions.boxes, assignment.boxes(truth))
        centerness_targets = self._centerness(predictions, assignment, truth)
        quality_loss = binary_cross_entropy_with_logits(predictions.quality, centerness_targets, reduction="none")
        quality_weights = balance_objects(assignment.positive.float(), assignment, truth, self.object_balance)
        class_sum, box_sum, quality_sum = masked_sums(
            (class_loss, targets.class_weights), (box_loss, targets.box_weights), (quality_loss, quality_weights)
        )
        return {"loss_cls": class_sum, "loss_bbox": box_sum, "loss_centerness": quality_sum / self.count(assignment)}

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        centerness_targets = self._centerness(predictions, assignment, truth)
        box_normalizer = normalizer(centerness_targets.sum(), self.min_normalizer)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / self.count(assignment),
            box_weights=centerness_targets * (self.box_weight / box_normalizer),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)

    def _centerness(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the centerness of positives in their objects, 0 elsewhere, (B,N)."""
        objects = with_least_sides(assignment.boxes(truth), self.floor)
        return centerness(predictions.priors.centers, objects) * assignment.positive


def fcos_criterion() -> CenternessCriterion:
    """Return the criterion of FCOS."""
    return CenternessCriterion()


def atss_criterion() -> CenternessCriterion:
    """Return the criterion of ATSS: at least one positive per image is counted, and boxes have weight 2."""
    return CenternessCriterion(count=num_positives_clamped, box_weight=2.0, min_normalizer=1.0)
