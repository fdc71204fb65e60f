"""FoveaBox's losses (Kong et al. 2019): focal loss of classes, smooth L1 loss of the logarithms of the distances.

The number of positives is averaged over ranks, so that the result does not depend on how many there are (the original
code divides by the number of each rank).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import LogDistances
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, masked_sum, normalizer, num_positives
from poise.protocols import LossWeights
from poise.structures import Assignment, DeltaPredictions, GroundTruth


def fovea_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the focal loss with FoveaBox's alpha and gamma."""
    return losses.focal(logits, targets, alpha=0.4, gamma=1.5)


@dataclass(frozen=True)
class FoveaCriterion:
    """Class loss divided by the number of positives plus one per image, distance loss by the number of positives.

    Args:
        coder: encoding of the distances.
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        beta: of the smooth L1 loss.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    coder: LogDistances = LogDistances()
    class_loss: Callable[[Tensor, Tensor], Tensor] = fovea_focal
    soft_label: Callable[[DeltaPredictions, Assignment, Tensor], Tensor | float] = hard_label
    beta: float = 0.11
    object_balance: float = 0.0

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        priors, targets = predictions.priors, self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        distances = self.coder.encode(priors.centers, priors.strides, assignment.boxes(truth))
        box_loss = losses.smooth_l1(predictions.deltas, distances, self.beta).sum(2)
        return {
            "loss_cls": masked_sum(class_loss, targets.class_weights),
            "loss_bbox": masked_sum(box_loss, targets.box_weights),
        }

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        positive = assignment.positive
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / normalizer(positive.sum() + len(positive)),
            box_weights=positive.float() / num_positives(assignment),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)
