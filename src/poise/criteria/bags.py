"""FreeAnchor's losses of bags of anchors (Zhang et al. 2019, eq. 9 and 10), and the parts in common with AutoAssign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.likelihood import BagWeights, negative_log, negative_log_rest
from poise.losses import masked_sum, normalizer
from poise.pairwise import sum_by_class
from poise.protocols import LossWeights
from poise.structures import GroundTruth, Predictions


def bag_losses(predictions: Predictions, assignment: BagWeights, truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """Return the positive loss, -ln of the likelihood of each bag, and the focal loss of weighted negatives.

    The positive loss is divided by the number of objects, the negative loss by the total mass of the bags. Both
    divisors are means over ranks, so that the result does not depend on their number (FreeAnchor's code divides by
    those of each rank).
    """
    valid = truth.valid.float()
    positive = masked_sum(negative_log(assignment.likelihood), valid) / normalizer(truth.valid.sum())
    return positive, _negative_loss(predictions, assignment).sum() / normalizer((assignment.mass * valid).sum())


def bag_weights(
    predictions: Predictions,
    assignment: BagWeights,
    truth: GroundTruth,
    positive_weight: float,
    *,
    negative_weight: float,
) -> LossWeights:
    """Return how much each prior counts in the losses of bags.

    The loss of an object is -ln of a mean over its bag; ``pairs`` are the weights of this mean. The mean includes the
    box as a likelihood exp(-box loss), so that the weight of the box is the same.
    """
    pairs = assignment.pairs() * truth.valid[:, None] * (positive_weight / normalizer(truth.valid.sum()))
    entropy = negative_log_rest(predictions.scores())
    negative = torch.where(entropy > 0, _negative_loss(predictions, assignment) / entropy, 0.0)
    negative = negative * (negative_weight / normalizer((assignment.mass * truth.valid).sum()))
    positive = sum_by_class(pairs, truth.labels, negative.shape[2])
    return LossWeights(positive, negative, pairs.sum(2), pairs=pairs)


def _negative_loss(predictions: Predictions, assignment: BagWeights) -> Tensor:
    """Return the focal loss of weighted negatives, (B,N,C)."""
    score = predictions.scores() * assignment.negative
    return score**2 * negative_log_rest(score)


@dataclass(frozen=True)
class FreeAnchorCriterion:
    """Likelihood of each object's bag, and negatives with less weight the better their boxes fit an object."""

    positive_weight: float = 0.5
    negative_weight: float = 0.5

    def __call__(self, predictions: Predictions, assignment: BagWeights, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``positive_bag_loss`` and ``negative_bag_loss``."""
        positive, negative = bag_losses(predictions, assignment, truth)
        return {
            "positive_bag_loss": self.positive_weight * positive,
            "negative_bag_loss": self.negative_weight * negative,
        }

    def weights(self, predictions: Predictions, assignment: BagWeights, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the likelihood of its bags, and as a negative."""
        return bag_weights(predictions, assignment, truth, self.positive_weight, negative_weight=self.negative_weight)
