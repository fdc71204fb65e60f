"""YOLOX's losses (Ge et al. 2021): classes of positives, objectness of all, boxes; at the end offsets as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import DeltaCoder, iou
from poise.criteria.protocol import LossWeights, Targets, masked_sum, num_positives
from poise.structures import Assignment, GroundTruth, JointDeltaPredictions


@dataclass(frozen=True)
class YOLOXCriterion:
    """All terms are sums divided by the number of positives.

    Positives are taught the ``quality`` that the assigner saw, the IoU of their box, at their class. The box loss is
    1 - IoU^2. ``offset_weight`` weighs the L1 loss of the encoded offsets; 0 leaves the term out.
    """

    coder: DeltaCoder
    box_weight: float = 5.0
    offset_weight: float = 0.0

    def __call__(
        self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects, positive, count = assignment.boxes(truth), assignment.positive.float(), num_positives(assignment)
        targets = self.targets(predictions, assignment, truth)
        class_loss = binary_cross_entropy_with_logits(predictions.logits, targets.class_targets, reduction="none")
        objectness = binary_cross_entropy_with_logits(predictions.quality, positive, reduction="none")
        box_loss = 1 - iou(predictions.boxes, objects).square()
        terms = {
            "loss_cls": masked_sum(class_loss.sum(2), targets.class_weights),
            "loss_bbox": masked_sum(box_loss, targets.box_weights),
            "loss_obj": masked_sum(objectness, (~assignment.ignored).float()) / count,
        }
        if self.offset_weight:
            wanted = self.coder.encode(predictions.priors.cells, objects)
            offset_loss = losses.l1(predictions.deltas, torch.nan_to_num(wanted)).sum(2)
            terms["loss_l1"] = masked_sum(offset_loss, positive) * (self.offset_weight / count)
        return terms

    def targets(self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What positives are targets, and how much of it counts."""
        positive, count = assignment.positive.float(), num_positives(assignment)
        targets = assignment.class_targets(truth, predictions.logits.shape[2], assignment.quality)
        return Targets(targets, positive / count, positive * (self.box_weight / count))

    def weights(self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses; the objectness of negatives is their ``background``."""
        targets = self.targets(predictions, assignment, truth)
        counted = targets.class_weights[..., None]
        background = assignment.negative / num_positives(assignment)
        return LossWeights(
            counted * targets.class_targets, counted * (1 - targets.class_targets), targets.box_weights, background
        )
