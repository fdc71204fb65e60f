"""RetinaNet's losses: focal loss of all places, L1 of the encoded offsets of positives (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import certain, masked_sum, positives_of_images
from poise.structures import Assignment, DeltaPredictions, GroundTruth

ElementLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AnchorCriterion:
    """Classes and offsets, both divided by the positives (at least one an image)."""

    coder: DeltaCoder = field(default_factory=DeltaCoder)
    class_loss: ElementLoss = losses.focal
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = certain  # of positives, in [0,1]
    offset_loss: ElementLoss = losses.l1
    offset_weight: float = 1.0

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        count = positives_of_images(assignment)
        objects = assignment.boxes(truth)
        soft_label = self.soft_label(predictions, assignment, objects)
        targets = assignment.targets(truth, predictions.logits.shape[2], soft_label)
        counted = (~assignment.ignored).float()[..., None]
        wanted = self.coder.encode(predictions.priors.boxes, objects)
        positive = assignment.positive.float()[..., None]
        return {
            "loss_cls": (self.class_loss(predictions.logits, targets) * counted).sum() / count,
            "loss_bbox": masked_sum(self.offset_loss(predictions.deltas, wanted), positive)
            * (self.offset_weight / count),
        }
