"""Losses of bags: FreeAnchor's (Zhang et al. 2019, eq. 9 and 10), and what AutoAssign's have in common with them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from poise.assign.likelihood import BagWeights, negative_log, negative_log_rest
from poise.criteria.protocol import masked_sum
from poise.distributed import normalizer
from poise.structures import GroundTruth, Predictions


def bag_losses(predictions: Predictions, assignment: BagWeights, truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """-ln of each bag's likelihood over the objects, and the focal loss of weighted negatives over the bags' mass.

    Both divisors are means over ranks, so that the result does not depend on their number (FreeAnchor's original
    divides by each rank's own).
    """
    valid = truth.valid.float()
    positive = masked_sum(negative_log(assignment.likelihood), valid) / normalizer(truth.num_objects.sum())
    score = predictions.scores() * assignment.negative
    negative = (score**2 * negative_log_rest(score)).sum() / normalizer((assignment.mass * valid).sum())
    return positive, negative


@dataclass(frozen=True)
class BagCriterion:
    """Likelihood of each object's bag, and negatives weighted by how little their boxes find an object."""

    positive_weight: float = 0.5
    negative_weight: float = 0.5

    def __call__(self, predictions: Predictions, assignment: BagWeights, truth: GroundTruth) -> dict[str, Tensor]:
        positive, negative = bag_losses(predictions, assignment, truth)
        return {
            "positive_bag_loss": self.positive_weight * positive,
            "negative_bag_loss": self.negative_weight * negative,
        }
