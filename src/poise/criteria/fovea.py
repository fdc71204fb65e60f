"""FoveaBox's losses (Kong et al. 2019): focal classes, smooth L1 of the logarithms of the four distances.

Positives are averaged over ranks, so that the result does not depend on their number (the original divides by each
rank's own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import LogDistances
from poise.criteria.protocol import certain, masked_sum, positives
from poise.distributed import normalizer
from poise.structures import Assignment, DeltaPredictions, GroundTruth


def fovea_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """The focal loss with FoveaBox's constants."""
    return losses.focal(logits, targets, alpha=0.4, gamma=1.5)


@dataclass(frozen=True)
class FoveaCriterion:
    """Classes divided by the positives plus one an image, distances by the positives."""

    coder: LogDistances = LogDistances()
    class_loss: Callable[[Tensor, Tensor], Tensor] = fovea_focal
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = certain  # of positives, in [0,1]
    beta: float = 0.11  # of the smooth L1 loss

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        priors, positive = predictions.priors, assignment.positive
        objects = assignment.boxes(truth)
        soft_label = self.soft_label(predictions, assignment, objects)
        targets = assignment.targets(truth, predictions.logits.shape[2], soft_label)
        class_loss = self.class_loss(predictions.logits, targets)
        wanted = self.coder.encode(priors.centers, priors.strides, objects)
        box_loss = losses.smooth_l1(predictions.deltas, wanted, self.beta).sum(2)
        counted = (~assignment.ignored).float()[..., None]
        return {
            "loss_cls": (class_loss * counted).sum() / normalizer(positive.sum() + len(positive)),
            "loss_bbox": masked_sum(box_loss, positive.float()) / positives(assignment),
        }
