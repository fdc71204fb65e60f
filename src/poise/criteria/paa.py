"""PAA's losses (Kim and Lee 2020, section 3.3): focal classes, the IoU of each box, boxes weighted by their IoU.

Positives are averaged over ranks, so that the result does not depend on their number (the original divides by each
rank's own).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import iou
from poise.criteria.protocol import masked_sum, positives
from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class OverlapCriterion:
    """Classes divided by the positives (at least one an image), IoU by the positives, boxes by the sum of their IoU."""

    box_weight: float = 1.3
    overlap_weight: float = 0.5

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects, positive = assignment.boxes(truth), assignment.positive
        targets = assignment.targets(truth, predictions.logits.shape[2])
        counted = (~assignment.ignored).float()[..., None]
        overlap = torch.where(positive, iou(predictions.boxes.detach(), objects), 0.0)
        weight = overlap.clamp(min=1e-12) * positive
        overlap_loss = binary_cross_entropy_with_logits(predictions.quality, overlap, reduction="none")
        class_loss = (losses.focal(predictions.logits, targets) * counted).sum()
        box_loss = masked_sum(losses.giou(predictions.boxes, objects), weight)
        return {
            "loss_cls": class_loss / normalizer(positive.sum(), float(len(positive))),
            "loss_bbox": box_loss * (self.box_weight / normalizer(overlap.sum(), 1e-6)),
            "loss_iou": masked_sum(overlap_loss, positive.float()) * (self.overlap_weight / positives(assignment)),
        }
