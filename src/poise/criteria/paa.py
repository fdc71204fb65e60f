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
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    loss_weights_from_logits,
    masked_sum,
    normalizer,
    num_positives,
)
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class PAACriterion:
    """Classes divided by the positives (at least one an image), IoU by the positives, boxes by the sum of their IoU."""

    box_weight: float = 1.3
    iou_weight: float = 0.5

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        positive, targets = assignment.positive.float(), self.targets(predictions, assignment, truth)
        overlap = _overlap(predictions, assignment, truth)
        overlap_loss = binary_cross_entropy_with_logits(predictions.quality, overlap, reduction="none")
        return {
            "loss_cls": masked_sum(
                losses.focal(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, assignment.boxes(truth)), targets.box_weights),
            "loss_iou": masked_sum(overlap_loss, positive) * (self.iou_weight / num_positives(assignment)),
        }

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        positive, overlap = assignment.positive, _overlap(predictions, assignment, truth)
        weight = overlap.clamp(min=1e-12) * positive
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2]),
            class_weights=(~assignment.ignored).float() / normalizer(positive.sum(), float(len(positive))),
            box_weights=weight * (self.box_weight / normalizer(overlap.sum(), 1e-6)),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, losses.focal(predictions.logits, targets.class_targets), predictions.logits
        )


def _overlap(predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """The IoU that positives are targets, 0 elsewhere, (B,N)."""
    overlap = iou(predictions.boxes.detach(), assignment.boxes(truth))
    return torch.where(assignment.positive, overlap, 0.0)
