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
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    hard_label,
    loss_weights_from_logits,
    masked_sum,
    normalizer,
    num_positives,
)
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
        priors, targets = predictions.priors, self.targets(predictions, assignment, truth)
        wanted = self.coder.encode(priors.centers, priors.strides, assignment.boxes(truth))
        box_loss = losses.smooth_l1(predictions.deltas, wanted, self.beta).sum(2)
        return {
            "loss_cls": masked_sum(
                self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(box_loss, targets.box_weights),
        }

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        positive = assignment.positive
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / normalizer(positive.sum() + len(positive)),
            box_weights=positive.float() / num_positives(assignment),
        )

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, self.class_loss(predictions.logits, targets.class_targets), predictions.logits
        )
