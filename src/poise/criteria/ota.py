"""OTA's losses (Ge et al. 2021, section 4.1): focal, GIoU and IoU losses, divided by the number of positives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import iou
from poise.criteria.matched_labels import is_matched_label
from poise.criteria.object_balance import balance_objects
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import masked_sum, num_positives
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class OTACriterion:
    """Class, box and IoU losses; all positives have the same weight, ignored priors have none.

    Args:
        box_weight: weight of the GIoU loss.
        iou_weight: weight of the IoU loss.
        class_loss: elementwise loss of logits and targets (B,N,C).
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    box_weight: float = 2.0
    iou_weight: float = 0.5
    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    object_balance: float = 0.0

    def __post_init__(self) -> None:
        if is_matched_label(self.class_loss):
            raise ValueError(f"the class target is 1, {type(self.class_loss).__name__} makes its own of the IoU")

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_iou``."""
        objects, targets = assignment.boxes(truth), self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        iou_targets = torch.where(assignment.positive, iou(predictions.boxes.detach(), objects), 0.0)
        iou_weights = balance_objects(assignment.positive.float(), assignment, truth, self.object_balance)
        iou_loss = binary_cross_entropy_with_logits(predictions.quality, iou_targets, reduction="none")
        iou_loss = masked_sum(iou_loss, iou_weights)
        return {
            "loss_cls": masked_sum(class_loss, targets.class_weights),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, objects), targets.box_weights),
            "loss_iou": iou_loss * (self.iou_weight / num_positives(assignment)),
        }

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        normalizer = num_positives(assignment)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2]),
            class_weights=(~assignment.ignored).float() / normalizer,
            box_weights=assignment.positive.float() * (self.box_weight / normalizer),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)
