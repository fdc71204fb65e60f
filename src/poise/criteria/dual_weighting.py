"""DW's losses (Li et al. 2022, eq. 7 and 8, in the normalization of the authors' code)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from poise import losses
from poise.assign.dual_weighting import DualWeights
from poise.criteria.protocol import LossWeights, masked_sum, normalizer, sum_by_class
from poise.pairwise.chunks import object_chunks
from poise.pairwise.pairs import pairs_of
from poise.structures import GroundTruth, QualityPredictions

TEMPORARIES = 8  # planes of pairs that the box loss keeps for its backward pass, against what streaming allows for


@dataclass(frozen=True)
class NegativeWeightFactors:
    """What a negative weight is made of, all (B,N,C)."""

    probability: Tensor  # of being a negative: falls with the IoU inside objects of the class, 1 elsewhere
    importance: Tensor  # score ** gamma
    positive: Tensor  # the positive weight, summed over the class's objects
    inside: Tensor  # bool, within an object of the class

    def probability_and_importance(self) -> Tensor:
        """Both factors (the default)."""
        return self.probability * self.importance

    def probability_only(self) -> Tensor:
        """Inside objects only the probability; background keeps its focal factor in this and all that follow."""
        return torch.where(self.inside, self.probability, self.importance)

    def importance_only(self) -> Tensor:
        return self.importance

    def neither(self) -> Tensor:
        """Places inside an object are no negatives of its class (positive weights alone)."""
        return torch.where(self.inside, 0.0, self.importance)

    def complement(self) -> Tensor:
        """1 - positive weight inside objects, as earlier soft assignments have it."""
        return torch.where(self.inside, (1 - self.positive).clamp(min=0), self.importance)


@dataclass(frozen=True)
class DualWeightingCriterion:
    """Positive classes and boxes by the positive weight, all classes by the negative weight.

    The first two are divided by the objects of the batch, the last by sum(1 - probability), whatever the weight is
    made of, so that the rows of an ablation differ in the weights alone.
    """

    positive_weight: float = 0.25
    box_weight: float = 5.0
    gamma: float = 2.0  # of the importance
    weigh: Callable[[NegativeWeightFactors], Tensor] = NegativeWeightFactors.probability_and_importance
    detached: bool = False  # True: the importance carries no gradient, as in the article

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"DualWeightingCriterion(gamma={self.gamma}): the exponent must not be negative")

    def __call__(
        self, predictions: QualityPredictions, assignment: DualWeights, truth: GroundTruth
    ) -> dict[str, Tensor]:
        log_scores = logsigmoid(predictions.logits) + logsigmoid(predictions.quality)[..., None]
        scores, scale = predictions.scores(), self._scale(truth)
        positive, negative = self._of_classes(scores, assignment, truth)
        return {
            "loss_cls_pos": masked_sum(-log_scores, positive) * scale,
            "loss_loc": box_loss(predictions.boxes, truth, assignment.positive) * (self.box_weight * scale),
            "loss_cls_neg": (negative * _negative_log_rest(scores)).sum() / _spared(assignment),
        }

    def weights(self, predictions: QualityPredictions, assignment: DualWeights, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses, for each object whose ``pairs`` it belongs to."""
        positive, negative = self._of_classes(predictions.scores(), assignment, truth)
        scale, spared = self._scale(truth), _spared(assignment)
        pairs = assignment.positive * scale
        return LossWeights(positive * scale, negative / spared, pairs.sum(2) * self.box_weight, pairs=pairs)

    def _of_classes(self, scores: Tensor, assignment: DualWeights, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Positive and negative weights (B,N,C) before they are normalized."""
        positive = sum_by_class(assignment.positive, truth.labels, scores.shape[2])
        importance = (scores.detach() if self.detached else scores) ** self.gamma
        evidence = NegativeWeightFactors(assignment.negative, importance, positive.detach(), assignment.inside)
        return positive, self.weigh(evidence)

    def _scale(self, truth: GroundTruth) -> Tensor:
        return self.positive_weight / normalizer(truth.num_objects.sum())


def _spared(assignment: DualWeights) -> Tensor:
    """What the negative term is divided by: the places that are no negatives, as far as they are none."""
    return normalizer((1 - assignment.negative).sum())


def _negative_log_rest(scores: Tensor) -> Tensor:
    """-ln(1 - s), finite at 1."""
    return -torch.log1p(-scores.clamp(max=1 - 1e-7))


def box_loss(boxes: Tensor, truth: GroundTruth, weight: Tensor) -> Tensor:
    """Sum of (1 - GIoU) of every (B,N) box with every object, weighted by (B,N,G).

    With very many objects it runs over slices of them and is computed again for the backward pass.
    """

    def part_of(boxes: Tensor, objects: Tensor, part: Tensor) -> Tensor:
        weights = part.transpose(1, 2)
        pairs = pairs_of(weights > 0)
        return masked_sum(losses.giou(pairs.of_places(boxes), pairs.of_objects(objects)), pairs.of_all(weights))

    batch, places, objects = weight.shape
    slices = object_chunks(batch * TEMPORARIES, places, objects)
    if len(slices) == 1:
        return part_of(boxes, truth.boxes, weight)
    sums = [checkpoint(part_of, boxes, truth.boxes[:, part], weight[..., part], use_reentrant=False) for part in slices]
    return torch.stack(sums).sum()
