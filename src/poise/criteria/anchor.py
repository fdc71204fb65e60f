"""RetinaNet's losses: focal loss of all places, L1 of the encoded offsets of positives (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    hard_label,
    loss_weights_from_logits,
    masked_sum,
    num_positives_clamped,
)
from poise.structures import Assignment, DeltaPredictions, GroundTruth

ElementLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AnchorCriterion:
    """Classes and offsets, both divided by the positives (at least one an image)."""

    coder: DeltaCoder = field(default_factory=DeltaCoder)
    class_loss: ElementLoss = losses.focal
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = hard_label  # of positives, in [0,1]
    offset_loss: ElementLoss = losses.l1
    offset_weight: float = 1.0

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        wanted = self.coder.encode(predictions.priors.boxes, assignment.boxes(truth))
        return {
            "loss_cls": masked_sum(
                self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(self.offset_loss(predictions.deltas, wanted).sum(2), targets.box_weights),
        }

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        count = num_positives_clamped(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / count,
            box_weights=assignment.positive.float() * (self.offset_weight / count),
        )

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, self.class_loss(predictions.logits, targets.class_targets), predictions.logits
        )
