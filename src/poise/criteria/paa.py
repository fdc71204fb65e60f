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
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
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
        positive, taught = assignment.positive.float(), self.taught(predictions, assignment, truth)
        overlap = _overlap(predictions, assignment, truth)
        overlap_loss = binary_cross_entropy_with_logits(predictions.quality, overlap, reduction="none")
        return {
            "loss_cls": taught.class_sum(losses.focal(predictions.logits, taught.targets)),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, assignment.boxes(truth)), taught.boxes),
            "loss_iou": masked_sum(overlap_loss, positive) * (self.overlap_weight / positives(assignment)),
        }

    def taught(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught, and how much of it counts."""
        positive, overlap = assignment.positive, _overlap(predictions, assignment, truth)
        weight = overlap.clamp(min=1e-12) * positive
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2]),
            classes=(~assignment.ignored).float() / normalizer(positive.sum(), float(len(positive))),
            boxes=weight * (self.box_weight / normalizer(overlap.sum(), 1e-6)),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, losses.focal(predictions.logits, taught.targets), predictions.logits)


def _overlap(predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """The IoU that positives are taught, 0 elsewhere, (B,N)."""
    overlap = iou(predictions.boxes.detach(), assignment.boxes(truth))
    return torch.where(assignment.positive, overlap, 0.0)
