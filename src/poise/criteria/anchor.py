"""RetinaNet's losses: focal loss of all places, L1 of the encoded offsets of positives (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import hard_label, masked_sum, positives_of_images
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
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
        taught = self.taught(predictions, assignment, truth)
        wanted = self.coder.encode(predictions.priors.boxes, assignment.boxes(truth))
        return {
            "loss_cls": taught.class_sum(self.class_loss(predictions.logits, taught.targets)),
            "loss_bbox": masked_sum(self.offset_loss(predictions.deltas, wanted).sum(2), taught.boxes),
        }

    def taught(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught, and how much of it counts."""
        count = positives_of_images(assignment)
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2], soft_label),
            classes=(~assignment.ignored).float() / count,
            boxes=assignment.positive.float() * (self.offset_weight / count),
        )

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, self.class_loss(predictions.logits, taught.targets), predictions.logits)
