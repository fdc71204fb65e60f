"""OTA's losses (Ge et al. 2021, section 4.1): focal classes, GIoU and each box's IoU, divided by the positives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import iou
from poise.criteria.protocol import masked_sum, positives
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class OTACriterion:
    """Every positive counts the same; ignored places count for no loss."""

    box_weight: float = 2.0
    overlap_weight: float = 0.5

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects, positive, count = assignment.boxes(truth), assignment.positive.float(), positives(assignment)
        taught = self.taught(predictions, assignment, truth)
        overlap = torch.where(assignment.positive, iou(predictions.boxes.detach(), objects), 0.0)
        overlap_loss = binary_cross_entropy_with_logits(predictions.quality, overlap, reduction="none")
        return {
            "loss_cls": taught.class_sum(losses.focal(predictions.logits, taught.targets)),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, objects), taught.boxes),
            "loss_iou": masked_sum(overlap_loss, positive) * (self.overlap_weight / count),
        }

    def taught(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught, and how much of it counts."""
        count = positives(assignment)
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2]),
            classes=(~assignment.ignored).float() / count,
            boxes=assignment.positive.float() * (self.box_weight / count),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, losses.focal(predictions.logits, taught.targets), predictions.logits)
