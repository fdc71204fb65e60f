"""YOLOX's losses (Ge et al. 2021): classes of positives, objectness of all, boxes; at the end offsets as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import DeltaCoder, iou
from poise.criteria.protocol import masked_sum, positives
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
        objects, positive, count = assignment.boxes(truth), assignment.positive.float(), positives(assignment)
        targets = assignment.targets(truth, predictions.logits.shape[2], assignment.quality)
        class_loss = binary_cross_entropy_with_logits(predictions.logits, targets, reduction="none").sum(2)
        objectness = binary_cross_entropy_with_logits(predictions.quality, positive, reduction="none")
        box_loss = 1 - iou(predictions.boxes, objects).square()
        terms = {
            "loss_cls": masked_sum(class_loss, positive) / count,
            "loss_bbox": masked_sum(box_loss, positive) * (self.box_weight / count),
            "loss_obj": masked_sum(objectness, (~assignment.ignored).float()) / count,
        }
        if self.offset_weight:
            wanted = self.coder.encode(predictions.priors.cells, objects)
            offset_loss = losses.l1(predictions.deltas, torch.nan_to_num(wanted)).sum(2)
            terms["loss_l1"] = masked_sum(offset_loss, positive) * (self.offset_weight / count)
        return terms
