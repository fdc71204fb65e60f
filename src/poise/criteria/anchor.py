"""RetinaNet's losses: focal loss of all anchors, L1 loss of the encoded offsets of positives (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, masked_sum, num_positives_clamped
from poise.protocols import LossWeights
from poise.structures import Assignment, DeltaPredictions, GroundTruth

ElementLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AnchorCriterion:
    """Class and offset losses, both divided by the number of positives (at least one per image).

    Args:
        coder: encoding of the offsets.
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        offset_loss: elementwise loss of offsets and their targets.
        offset_weight: weight of the offset loss.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    coder: DeltaCoder = field(default_factory=DeltaCoder)
    class_loss: ElementLoss = losses.focal
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = hard_label
    offset_loss: ElementLoss = losses.l1
    offset_weight: float = 1.0
    object_balance: float = 0.0

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        targets = self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        offsets = self.coder.encode(predictions.priors.boxes, assignment.boxes(truth))
        offset_loss = self.offset_loss(predictions.deltas, offsets).sum(2)
        return {
            "loss_cls": masked_sum(class_loss, targets.class_weights),
            "loss_bbox": masked_sum(offset_loss, targets.box_weights),
        }

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        normalizer = num_positives_clamped(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / normalizer,
            box_weights=assignment.positive.float() * (self.offset_weight / normalizer),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)
