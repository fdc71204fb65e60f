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
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    loss_weights_from_logits,
    masked_sum,
    normalizer,
    num_positives,
)
from poise.structures import Assignment, GroundTruth, Predictions, RefinedPredictions


@dataclass(frozen=True)
class VarifocalCriterion:
    """Classes are taught the IoU of their place's final box; both boxes are weighted by their own IoU.

    With ``hard_labels`` positives are targets 1 and ignored places do not count (for the plain focal loss); otherwise
    every place counts, padding included, as in the original.
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.varifocal
    hard_labels: bool = False
    initial_weight: float = 1.5
    refined_weight: float = 2.0

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        objects, targets = assignment.boxes(truth), self.targets(predictions, assignment, truth)
        last_loss = masked_sum(losses.giou(predictions.boxes, objects), targets.box_weights)
        terms = {
            "loss_cls": masked_sum(
                self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            )
        }
        if not isinstance(predictions, RefinedPredictions):
            return {**terms, "loss_bbox": last_loss}
        first = predictions.initial_boxes
        first_loss = masked_sum(losses.giou(first, objects), self.initial_weight * _share(first, objects, assignment))
        return {**terms, "loss_bbox": first_loss, "loss_bbox_rf": last_loss}

    def targets(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are taught of classes and of their last box, and how much of it counts."""
        objects = assignment.boxes(truth)
        overlap = iou(predictions.boxes.detach(), objects).clamp(min=EPS)
        counted = ~assignment.ignored if self.hard_labels else torch.ones_like(assignment.ignored)
        last_weight = self.refined_weight if isinstance(predictions, RefinedPredictions) else self.initial_weight
        return Targets(
            class_targets=assignment.class_targets(
                truth, predictions.logits.shape[2], 1.0 if self.hard_labels else overlap
            ),
            class_weights=counted / num_positives(assignment),
            box_weights=last_weight * _share(predictions.boxes, objects, assignment),
        )

    def weights(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and of its last box."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, self.class_loss(predictions.logits, targets.class_targets), predictions.logits
        )


def _share(boxes: Tensor, objects: Tensor, assignment: Assignment) -> Tensor:
    """The IoU that the box of each positive has, divided by their sum, (B,N)."""
    weight = iou(boxes.detach(), objects).clamp(min=EPS) * assignment.positive
    return weight / normalizer(weight.sum())
