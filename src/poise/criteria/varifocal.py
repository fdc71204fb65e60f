"""VarifocalNet's losses (Zhang et al. 2021): IoU-aware classes, boxes before and after refinement.

Normalizers are the code's: classes by the number of positives, boxes by the sum of their own overlaps (the article
divides all by the number of positives).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import EPS, iou
from poise.criteria.protocol import masked_sum, positives
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth, Predictions, RefinedPredictions


@dataclass(frozen=True)
class VarifocalCriterion:
    """Classes are taught the IoU of their place's final box; both boxes are weighted by their own IoU.

    With ``hard_targets`` positives are taught 1 and ignored places do not count (for the plain focal loss); otherwise
    every place counts, padding included, as in the original.
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.varifocal
    hard_targets: bool = False
    first_weight: float = 1.5
    refined_weight: float = 2.0

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        objects, taught = assignment.boxes(truth), self.taught(predictions, assignment, truth)
        last_loss = masked_sum(losses.giou(predictions.boxes, objects), taught.boxes)
        terms = {"loss_cls": taught.class_sum(self.class_loss(predictions.logits, taught.targets))}
        if not isinstance(predictions, RefinedPredictions):
            return {**terms, "loss_bbox": last_loss}
        first = predictions.initial_boxes
        first_loss = masked_sum(losses.giou(first, objects), self.first_weight * _share(first, objects, assignment))
        return {**terms, "loss_bbox": first_loss, "loss_bbox_rf": last_loss}

    def taught(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught of classes and of their last box, and how much of it counts."""
        objects = assignment.boxes(truth)
        overlap = iou(predictions.boxes.detach(), objects).clamp(min=EPS)
        counted = ~assignment.ignored if self.hard_targets else torch.ones_like(assignment.ignored)
        last_weight = self.refined_weight if isinstance(predictions, RefinedPredictions) else self.first_weight
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2], 1.0 if self.hard_targets else overlap),
            classes=counted / positives(assignment),
            boxes=last_weight * _share(predictions.boxes, objects, assignment),
        )

    def weights(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and of its last box."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, self.class_loss(predictions.logits, taught.targets), predictions.logits)


def _share(boxes: Tensor, objects: Tensor, assignment: Assignment) -> Tensor:
    """The IoU that the box of each positive has, divided by their sum, (B,N)."""
    weight = iou(boxes.detach(), objects).clamp(min=EPS) * assignment.positive
    return weight / normalizer(weight.sum())
