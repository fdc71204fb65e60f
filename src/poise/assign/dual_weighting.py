"""Dual weighting (Li et al. 2022): how much each place is a positive and a negative of each object.

The positive weight grows with the consistency of class score and box, the negative weight falls with the overlap of
the predicted box, so that a place can be weighed as neither or as both. The defaults are the authors' code; where the
article differs, an option says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.center_priors import Bag, GaussianCenterPrior
from poise.boxes import iou_and_giou
from poise.pairwise.chunks import object_chunks
from poise.pairwise.pairs import TINY, Pairs, between, class_scores_of_pairs, pairs_inside
from poise.structures import GroundTruth, PairWeights, Predictions

TEMPORARIES = 8  # a pair needs this many times the memory that streaming allows for
UNSAID = 2.0  # above every probability


@dataclass(frozen=True)
class DualWeights(PairWeights):
    """``positive`` (B,N,G), ``negative`` (B,N,C): the probability of being a negative, 1 outside every object."""

    inside: Tensor  # (B,N,C) bool: within an object of that class


@dataclass(frozen=True)
class NormalizedIoU:
    """1 at IoU 0.5 and below, and 0 at the best IoU that the object has (the authors' code)."""

    gamma: float = 2.0

    def __call__(self, overlap: Tensor, pairs: Pairs) -> Tensor:
        """Probabilities of the overlaps of pairs; each object's range is taken over its own."""
        value = (1 - overlap**self.gamma) / (1 - 0.5**self.gamma)
        spread = between(value, -pairs.most(-value), pairs.most(value).clamp(max=1), pairs)
        return torch.where(overlap < 0.5, 1.0, spread)


@dataclass(frozen=True)
class LinearIoU:
    """-k IoU^gamma + b through (0.5, 1) and (``zero``, 0), cut to [0,1] (the article's eq. 6)."""

    gamma: float = 2.0
    zero: float = 0.95

    def __call__(self, overlap: Tensor, pairs: Pairs) -> Tensor:
        slope = 1 / (self.zero**self.gamma - 0.5**self.gamma)
        return (slope * (self.zero**self.gamma - overlap**self.gamma)).clamp(0, 1)


def box_likelihood(overlap: Tensor, generalized: Tensor, beta: float) -> Tensor:
    """exp(-beta (1 - GIoU)): the code's."""
    return (-beta * (1 - generalized)).exp()


def overlap_power(overlap: Tensor, generalized: Tensor, beta: float) -> Tensor:
    """IoU^beta: the article's (through the logarithm, whose rounding does not depend on the place in memory)."""
    return (overlap.clamp(min=TINY).log() * beta).exp()


@dataclass(frozen=True)
class DualWeighting:
    """Soft assignment from predictions.

    Objects of one class that contain the same place both speak of its negative weight there: the one with the highest
    index wins. Places with predictions that are not finite get no positive weight.
    """

    reads: ClassVar[str] = "predictions"
    bag: Bag = GaussianCenterPrior()
    beta: float = 5.0  # weight of the box in the consistency
    mu: float = 5.0  # sharpness of the positive weight
    mu_total: float = 3.0  # the same in the sum it is divided by; equal to ``mu``: the article's normalized weight
    location: Callable[[Tensor, Tensor, float], Tensor] = box_likelihood
    overlap_function: Callable[[Tensor, Pairs], Tensor] = NormalizedIoU()
    detached: bool = True  # False lets gradients through the positive weights

    def __post_init__(self) -> None:
        if min(self.beta, self.mu, self.mu_total) < 0:
            raise ValueError(
                f"DualWeighting(beta={self.beta}, mu={self.mu}, mu_total={self.mu_total}): none is negative"
            )

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> DualWeights:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
            (batch, places, classes), objects = predictions.logits.shape, truth.labels.shape[1]
            priors, predicted, finite = predictions.priors, predictions.boxes.float(), predictions.finite()
            negative, parts = predicted.new_full((batch, classes, places), UNSAID), []
            for part in object_chunks(batch * TEMPORARIES, places, objects):
                boxes, labels = truth.boxes[:, part], truth.labels[:, part]
                pairs = pairs_inside(priors.centers, boxes, truth.valid[:, part])
                score = class_scores_of_pairs(predictions, labels, pairs)
                fit = self._fit(score, pairs.of_places(predicted), pairs.of_objects(boxes))
                overlap, consistency = (torch.where(pairs.of_places(finite), value, 0.0) for value in fit)
                parts.append(self._positive(consistency, self.bag(priors, boxes, labels, pairs), pairs))
                pairs.tell_classes(self.overlap_function(overlap.detach(), pairs), labels, negative)
            owned, negative = (t.transpose(1, 2) for t in (negative < UNSAID, negative.clamp_(max=1)))
            return DualWeights(torch.cat(parts, 1).transpose(1, 2), negative, owned)

    def _fit(self, score: Tensor, predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """IoU and consistency of prediction and object for every pair, 0 where not finite."""
        overlap, generalized = iou_and_giou(predicted, wanted)
        consistency = score * self.location(overlap, generalized, self.beta)
        usable = consistency.isfinite() & overlap.isfinite()
        return torch.where(usable, overlap, 0.0), torch.where(usable, consistency, 0.0)

    def _positive(self, consistency: Tensor, prior: Tensor, pairs: Pairs) -> Tensor:
        """Weights (B,g,N); eq. 5 of the article when ``mu_total`` equals ``mu``."""
        weight = (self.mu * consistency).exp() * consistency * prior
        total = pairs.total((self.mu_total * consistency).exp() * consistency * prior)
        return pairs.dense(weight / pairs.of_objects(total.clamp(min=TINY)))
