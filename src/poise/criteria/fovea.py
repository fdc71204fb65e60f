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
from poise.criteria.protocol import hard_label, masked_sum, positives
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
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
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = hard_label  # of positives, in [0,1]
    beta: float = 0.11  # of the smooth L1 loss

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        priors, taught = predictions.priors, self.taught(predictions, assignment, truth)
        wanted = self.coder.encode(priors.centers, priors.strides, assignment.boxes(truth))
        box_loss = losses.smooth_l1(predictions.deltas, wanted, self.beta).sum(2)
        return {
            "loss_cls": taught.class_sum(self.class_loss(predictions.logits, taught.targets)),
            "loss_bbox": masked_sum(box_loss, taught.boxes),
        }

    def taught(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught, and how much of it counts."""
        positive = assignment.positive
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2], soft_label),
            classes=(~assignment.ignored).float() / normalizer(positive.sum() + len(positive)),
            boxes=positive.float() / positives(assignment),
        )

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, self.class_loss(predictions.logits, taught.targets), predictions.logits)
