"""VarifocalNet's losses (Zhang et al. 2021): IoU-aware classes, boxes before and after refinement.

Normalisers are the code's: classes by the number of positives, boxes by the sum of their own overlaps (the article
divides all by the number of positives).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import EPS, iou
from poise.criteria.protocol import masked_sum, positives
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
        objects = assignment.boxes(truth)
        overlap = iou(predictions.boxes.detach(), objects).clamp(min=EPS)
        targets = assignment.targets(truth, predictions.logits.shape[2], 1.0 if self.hard_targets else overlap)
        class_loss = self.class_loss(predictions.logits, targets)
        if self.hard_targets:
            class_loss = class_loss * (~assignment.ignored)[..., None]
        refined = isinstance(predictions, RefinedPredictions)
        first = predictions.initial_boxes if isinstance(predictions, RefinedPredictions) else predictions.boxes
        terms = {
            "loss_cls": class_loss.sum() / positives(assignment),
            "loss_bbox": self.first_weight * _box_loss(first, objects, assignment),
        }
        if refined:
            terms["loss_bbox_rf"] = self.refined_weight * _box_loss(predictions.boxes, objects, assignment)
        return terms


def _box_loss(boxes: Tensor, objects: Tensor, assignment: Assignment) -> Tensor:
    """GIoU loss of positives weighted by the IoU that each box has, divided by the sum of the weights."""
    weight = iou(boxes.detach(), objects).clamp(min=EPS) * assignment.positive
    return masked_sum(losses.giou(boxes, objects), weight) / normalizer(weight.sum())
