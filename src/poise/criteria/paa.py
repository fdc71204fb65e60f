"""PAA's losses (Kim and Lee 2020, section 3.3): focal loss, IoU prediction, box loss weighted by the IoU of the box.

The number of positives is averaged over ranks, so that the result does not depend on how many there are (the original
code divides by the number of each rank).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import iou
from poise.criteria.object_balance import balance_objects
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, masked_sum, normalizer, num_positives
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class PAACriterion:
    """Class, box and IoU losses.

    The class loss is divided by the number of positives (at least one per image), the IoU loss by the number of
    positives, and the box loss by the sum of the IoUs.

    Args:
        box_weight: weight of the box loss.
        iou_weight: weight of the IoU loss.
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    box_weight: float = 1.3
    iou_weight: float = 0.5
    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QualityPredictions, Assignment, Tensor], Tensor | float] = hard_label
    object_balance: float = 0.0

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_iou``."""
        targets = self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        box_loss = losses.giou(predictions.boxes, assignment.boxes(truth))
        iou_targets = _iou_targets(predictions, assignment, truth)
        iou_weights = balance_objects(assignment.positive.float(), assignment, truth, self.object_balance)
        iou_loss = binary_cross_entropy_with_logits(predictions.quality, iou_targets, reduction="none")
        iou_loss = masked_sum(iou_loss, iou_weights)
        return {
            "loss_cls": masked_sum(class_loss, targets.class_weights),
            "loss_bbox": masked_sum(box_loss, targets.box_weights),
            "loss_iou": iou_loss * (self.iou_weight / num_positives(assignment)),
        }

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        positive, iou_targets = assignment.positive, _iou_targets(predictions, assignment, truth)
        weight = iou_targets.clamp(min=1e-12) * positive
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / normalizer(positive.sum(), float(len(positive))),
            box_weights=weight * (self.box_weight / normalizer(iou_targets.sum(), 1e-6)),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)


def _iou_targets(predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """Return the IoU of each positive's box with its object, 0 elsewhere, (B,N)."""
    return torch.where(assignment.positive, iou(predictions.boxes.detach(), assignment.boxes(truth)), 0.0)
