"""OTA's losses (Ge et al. 2021, section 4.1): focal classes, GIoU and each box's IoU, divided by the positives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import iou
from poise.criteria.protocol import LossWeights, Targets, loss_weights_from_logits, masked_sum, num_positives
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class OTACriterion:
    """Every positive counts the same; ignored places count for no loss."""

    box_weight: float = 2.0
    iou_weight: float = 0.5

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects, positive, count = assignment.boxes(truth), assignment.positive.float(), num_positives(assignment)
        targets = self.targets(predictions, assignment, truth)
        overlap = torch.where(assignment.positive, iou(predictions.boxes.detach(), objects), 0.0)
        overlap_loss = binary_cross_entropy_with_logits(predictions.quality, overlap, reduction="none")
        return {
            "loss_cls": masked_sum(
                losses.focal(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, objects), targets.box_weights),
            "loss_iou": masked_sum(overlap_loss, positive) * (self.iou_weight / count),
        }

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        count = num_positives(assignment)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2]),
            class_weights=(~assignment.ignored).float() / count,
            box_weights=assignment.positive.float() * (self.box_weight / count),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, losses.focal(predictions.logits, targets.class_targets), predictions.logits
        )
