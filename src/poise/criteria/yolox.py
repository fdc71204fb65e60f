"""YOLOX's losses (Ge et al. 2021): classes of positives, objectness of all priors, IoU loss, and L1 loss at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import DeltaCoder, iou
from poise.criteria.object_balance import balance_objects
from poise.criteria.protocol import Targets
from poise.losses import binary_cross_entropy, hard_label, masked_sum, num_positives
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, JointDeltaPredictions


@dataclass(frozen=True)
class YOLOXCriterion:
    """Class, box, objectness and offset losses, all divided by the number of positives.

    The class target of a positive is the assigner's ``quality``, the IoU of its box. The box loss is 1 - IoU^2.

    Args:
        coder: encoding of the offsets.
        box_weight: weight of the box loss.
        offset_weight: weight of the L1 loss of the encoded offsets; 0 leaves it out.
        objectness_loss: elementwise loss of objectness logits and their targets (B,N).
        objectness_label: objectness target of positives in [0,1], from predictions, assignment and the boxes of the
            objects.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    coder: DeltaCoder
    box_weight: float = 5.0
    offset_weight: float = 0.0
    objectness_loss: Callable[[Tensor, Tensor], Tensor] = binary_cross_entropy
    objectness_label: Callable[[JointDeltaPredictions, Assignment, Tensor], Tensor | float] = hard_label
    object_balance: float = 0.0

    def __call__(
        self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox``, ``loss_obj`` and, with ``offset_weight``, ``loss_l1``."""
        objects, count = assignment.boxes(truth), num_positives(assignment)
        positive = balance_objects(assignment.positive.float(), assignment, truth, self.object_balance)
        counted = balance_objects((~assignment.ignored).float(), assignment, truth, self.object_balance)
        targets = self.targets(predictions, assignment, truth)
        class_loss = binary_cross_entropy_with_logits(predictions.logits, targets.class_targets, reduction="none")
        objectness = self.objectness_loss(predictions.quality, self._objectness(predictions, assignment, truth))
        box_loss = 1 - iou(predictions.boxes, objects).square()
        terms = {
            "loss_cls": masked_sum(class_loss.sum(2), targets.class_weights),
            "loss_bbox": masked_sum(box_loss, targets.box_weights),
            "loss_obj": masked_sum(objectness, counted) / count,
        }
        if self.offset_weight:
            offsets = torch.nan_to_num(self.coder.encode(predictions.priors.cells, objects))
            offset_loss = losses.l1(predictions.deltas, offsets).sum(2)
            terms["loss_l1"] = masked_sum(offset_loss, positive) * (self.offset_weight / count)
        return terms

    def targets(self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return the class targets and weights of positives."""
        positive, count = assignment.positive.float(), num_positives(assignment)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], assignment.quality),
            class_weights=positive / count,
            box_weights=positive * (self.box_weight / count),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses; ``background`` is the objectness loss of negatives."""
        labels, class_weights, box_weights = self.targets(predictions, assignment, truth)
        positive, negative = class_weights[..., None] * labels, class_weights[..., None] * (1 - labels)
        targets = self._objectness(predictions, assignment, truth)
        factor = self.objectness_loss(predictions.quality, targets) / binary_cross_entropy(predictions.quality, targets)
        background = torch.where(assignment.negative, factor, 0.0) / num_positives(assignment)
        return LossWeights(positive, negative, box_weights, background)

    def _objectness(self, predictions: JointDeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the objectness targets (B,N)."""
        label = self.objectness_label(predictions, assignment, assignment.boxes(truth))
        return (assignment.positive * label).float()
