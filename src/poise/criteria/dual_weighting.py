"""DW's losses (Li et al. 2022, eq. 7 and 8, with the normalization of the authors' code).

Each prior has a positive weight for every object that contains it, and a negative weight for every class. Positive
classification and box losses are weighted by the first, the negative classification loss by the second, which is the
product of two factors: the probability of being a negative, which decreases with the IoU of the predicted box, and the
importance as a negative, score ** gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from poise.assign.dual_weighting import BySize, DualWeights, Parameter
from poise.boxes import giou
from poise.losses import masked_sum, normalizer
from poise.pairwise import from_mask, object_slices, sum_by_class
from poise.protocols import LossWeights
from poise.structures import GroundTruth, Predictions


@dataclass(frozen=True)
class NegativeWeightFactors:
    """Factors of the negative weight, all (B,N,C), and the ways to combine them (the article's ablation)."""

    probability: Tensor  # of being a negative: decreases with the IoU inside objects of the class, 1 elsewhere
    importance: Tensor  # score ** gamma
    positive: Tensor  # the positive weight, summed over the class's objects
    inside: Tensor  # bool, whether the prior is inside an object of the class

    def probability_and_importance(self) -> Tensor:
        """Return the product of both factors (the default)."""
        return self.probability * self.importance

    def probability_only(self) -> Tensor:
        """Return the probability inside objects; outside the importance, as in all that follow."""
        return torch.where(self.inside, self.probability, self.importance)

    def importance_only(self) -> Tensor:
        """Return the importance."""
        return self.importance

    def neither(self) -> Tensor:
        """Return 0 inside objects: there are positive weights alone."""
        return torch.where(self.inside, 0.0, self.importance)

    def complement(self) -> Tensor:
        """Return 1 - positive weight inside objects, as in earlier soft assignments."""
        return torch.where(self.inside, (1 - self.positive).clamp(min=0), self.importance)


@dataclass(frozen=True)
class DualWeightingCriterion:
    """Positive classification, box and negative classification losses.

    The first two are divided by the number of objects, the last by the sum of 1 - probability. The divisors do not
    depend on ``negative_weight``, so that rows of an ablation differ in the weights alone.

    Args:
        positive_weight: weight of the positive classification loss, and of the box loss.
        box_weight: weight of the box loss relative to it.
        gamma: exponent of the importance; ``BySize`` within objects needs ``DualWeighting(return_sizes=True)``.
        negative_weight: combination of the factors of the negative weight.
        detached: whether the importance has no gradient, as in the article.
    """

    positive_weight: float = 0.25
    box_weight: float = 5.0
    gamma: Parameter = 2.0
    negative_weight: Callable[[NegativeWeightFactors], Tensor] = NegativeWeightFactors.probability_and_importance
    detached: bool = False

    def __post_init__(self) -> None:
        lowest = min(self.gamma.small, self.gamma.large) if isinstance(self.gamma, BySize) else self.gamma
        if lowest < 0:
            raise ValueError(f"DualWeightingCriterion(gamma={self.gamma}): gamma must not be negative")

    def __call__(self, predictions: Predictions, assignment: DualWeights, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls_pos``, ``loss_loc`` and ``loss_cls_neg``."""
        scores, log_scores = predictions.scores(), predictions.log_scores()
        positive, negative, scale, negative_normalizer = self._weights(scores, assignment, truth)
        negative_entropy = -torch.log1p(-scores.clamp(max=1 - 1e-7))  # -ln(1 - s), finite at s = 1
        return {
            "loss_cls_pos": masked_sum(-log_scores, positive) * scale,
            "loss_loc": box_loss(predictions.boxes, truth, assignment.positive) * (self.box_weight * scale),
            "loss_cls_neg": (negative * negative_entropy).sum() / negative_normalizer,
        }

    def weights(self, predictions: Predictions, assignment: DualWeights, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses; ``pairs`` has the positive weights by object."""
        positive, negative, scale, negative_normalizer = self._weights(predictions.scores(), assignment, truth)
        pairs = assignment.positive * scale
        return LossWeights(
            positive * scale, negative / negative_normalizer, pairs.sum(2) * self.box_weight, pairs=pairs
        )

    def _weights(
        self, scores: Tensor, assignment: DualWeights, truth: GroundTruth
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positive and negative weights (B,N,C), the factor of the first and the divisor of the second."""
        positive = sum_by_class(assignment.positive, truth.labels, scores.shape[2])
        importance = (scores.detach() if self.detached else scores) ** self._exponent(assignment)
        factors = NegativeWeightFactors(assignment.negative, importance, positive.detach(), assignment.inside)
        scale = self.positive_weight / normalizer(truth.valid.sum())
        return positive, self.negative_weight(factors), scale, normalizer((1 - assignment.negative).sum())

    def _exponent(self, assignment: DualWeights) -> Tensor | float:
        """Return gamma, or that of each prior and class (B,N,C): by the size of the object, ``large`` outside."""
        if not isinstance(self.gamma, BySize):
            return self.gamma
        if assignment.sizes is None:
            raise ValueError(
                f"DualWeightingCriterion(gamma={self.gamma}) reads the sizes of objects, which the assigner does not "
                "return: give DualWeighting(return_sizes=True), on the command line dual_weighting(return_sizes=true)"
            )
        return torch.where(assignment.inside, self.gamma(assignment.sizes), self.gamma.large)


def box_loss(boxes: Tensor, truth: GroundTruth, weight: Tensor) -> Tensor:
    """Return the sum of 1 - GIoU of each (B,N) box with each object, weighted by (B,N,G).

    With very many objects the sum runs over chunks of them, which are computed again in the backward pass.
    """

    def chunk_loss(boxes: Tensor, objects: Tensor, weight: Tensor) -> Tensor:
        weight = weight.transpose(1, 2)
        pairs = from_mask(weight > 0)
        loss = 1 - giou(pairs.from_priors(boxes), pairs.from_objects(objects))
        return masked_sum(loss, pairs.from_dense(weight))

    batch, priors, objects = weight.shape
    chunks = object_slices(batch, priors, objects, planes_alive=8)
    if len(chunks) == 1:
        return chunk_loss(boxes, truth.boxes, weight)
    sums = [
        checkpoint(chunk_loss, boxes, truth.boxes[:, part], weight[..., part], use_reentrant=False) for part in chunks
    ]
    return torch.stack(sums).sum()
