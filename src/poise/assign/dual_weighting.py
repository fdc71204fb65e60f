"""Dual weighting (Li et al. 2022): how much each prior is a positive and a negative of each object.

The positive weight grows with the consistency of class score and box, the negative weight falls with the IoU of the
predicted box, so that a prior can have two large or two small weights. The defaults are the authors' code;
where the article differs, an option says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.center_priors import CenterPriorFunction, GaussianCenterPrior
from poise.boxes import area, iou_and_giou
from poise.pairwise import TINY, Objects, Pairs, chunks_of_objects, inside
from poise.structures import GroundTruth, PairWeights, Predictions, Priors

OUTSIDE = 2.0  # above every probability: no object of the class


@dataclass(frozen=True)
class DualWeights(PairWeights):
    """``positive`` (B,N,G), ``negative`` (B,N,C): the probability of being a negative, 1 outside every object."""

    inside: Tensor  # (B,N,C) bool: within an object of that class, or another candidate of one
    sizes: Tensor | None = None  # (B,N,C): root of the area of the object whose negative weight it is, px; 0 outside


@dataclass(frozen=True)
class BySize:
    """A parameter that depends on the size of an object, the root of its area (the article's section 4.3).

    It is ``small`` up to ``low`` px and ``large`` from ``high`` px, between them linear in the logarithm of the size.
    """

    small: float
    large: float
    low: float = 32.0
    high: float = 96.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"{self}: 0 < low < high")

    def __call__(self, sizes: Tensor) -> Tensor:
        """Return the values (...) for the sizes (...) of objects, in pixels."""
        part = ((sizes.clamp(min=TINY) / self.low).log() / math.log(self.high / self.low)).clamp(0, 1)
        return self.small + (self.large - self.small) * part


Parameter = float | BySize
Candidates = Callable[[Priors, Objects, GroundTruth], Pairs]


def of_pairs(parameter: Parameter, objects: Objects, pairs: Pairs) -> Tensor | float:
    """Return the value of a parameter for each pair."""
    return pairs.from_objects(parameter(sizes_of(objects.boxes))) if isinstance(parameter, BySize) else parameter


def sizes_of(boxes: Tensor) -> Tensor:
    """Return the root of the area (...) of boxes (...,4)."""
    return area(boxes).clamp(min=TINY).sqrt()


@dataclass(frozen=True)
class NormalizedIoU:
    """1 at IoU 0.5 and below, and 0 at the highest IoU of the object (the authors' code)."""

    gamma: Parameter = 2.0

    def __call__(self, overlap: Tensor, pairs: Pairs, objects: Objects) -> Tensor:
        """Probabilities of the IoU of pairs; each object's range is taken over its own."""
        gamma = of_pairs(self.gamma, objects, pairs)
        value = (1 - overlap**gamma) / (1 - 0.5**gamma)
        return torch.where(overlap < 0.5, 1.0, pairs.normalize_by_object(value, high=1.0))


@dataclass(frozen=True)
class LinearIoU:
    """-k IoU^gamma + b through (0.5, 1) and (``zero``, 0), clamped to [0,1] (the article's eq. 6)."""

    gamma: Parameter = 2.0
    zero: float = 0.95

    def __call__(self, overlap: Tensor, pairs: Pairs, objects: Objects) -> Tensor:
        gamma = of_pairs(self.gamma, objects, pairs)
        slope = 1 / (self.zero**gamma - 0.5**gamma)
        return (slope * (self.zero**gamma - overlap**gamma)).clamp(0, 1)


def box_likelihood(overlap: Tensor, giou: Tensor, beta: Tensor | float) -> Tensor:
    """exp(-beta (1 - GIoU)), as in the code."""
    return (-beta * (1 - giou)).exp()


def overlap_power(overlap: Tensor, giou: Tensor, beta: Tensor | float) -> Tensor:
    """IoU^beta, as in the article (through the logarithm, whose rounding does not depend on the storage of pairs)."""
    return (overlap.clamp(min=TINY).log() * beta).exp()


@dataclass(frozen=True)
class DualWeighting:
    """Soft assignment from predictions.

    Where objects of one class overlap, the negative weight is that of the object with the highest index. Priors with
    predictions that are not finite have no positive weight.
    """

    center_prior: CenterPriorFunction = GaussianCenterPrior()
    beta: Parameter = 5.0  # weight of the box in the consistency
    mu: Parameter = 5.0  # sharpness of the positive weight
    mu_total: Parameter = 3.0  # the same in the sum it is divided by; equal to ``mu``: weights sum to 1
    location: Callable[[Tensor, Tensor, Tensor | float], Tensor] = box_likelihood
    negative_probability: Callable[[Tensor, Pairs, Objects], Tensor] = NormalizedIoU()
    detached: bool = True  # False lets gradients through the positive weights
    bag_bounds_negatives: bool = False  # priors with a center prior of 0 are plain negatives, as in the article
    return_sizes: bool = False  # for a criterion whose exponent depends on the size of the object
    candidates: Candidates | None = None  # None: the priors inside each object

    def __post_init__(self) -> None:
        values = (self.beta, self.mu, self.mu_total)
        if min(min(v.small, v.large) if isinstance(v, BySize) else v for v in values) < 0:
            raise ValueError(
                f"DualWeighting(beta={self.beta}, mu={self.mu}, mu_total={self.mu_total}): none is negative"
            )

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> DualWeights:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
            priors, boxes, finite = predictions.priors, predictions.boxes.float(), predictions.finite()
            batch, count, classes = predictions.logits.shape
            negative, positive = boxes.new_full((batch, classes, count), OUTSIDE), []
            sizes = torch.zeros_like(negative) if self.return_sizes else None
            for objects in chunks_of_objects(truth, count, planes_alive=8):
                pairs = inside(priors, objects) if self.candidates is None else self.candidates(priors, objects, truth)
                if self.bag_bounds_negatives:
                    pairs = pairs.where(self.center_prior(priors, objects, pairs) > 0)
                beta, mu, mu_total = (of_pairs(p, objects, pairs) for p in (self.beta, self.mu, self.mu_total))
                score = pairs.class_scores(predictions, objects.labels)
                overlap, giou = iou_and_giou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes))
                consistency = score * self.location(overlap, giou, beta)  # eq. 4
                usable = pairs.from_priors(finite) & consistency.isfinite() & overlap.isfinite()
                overlap, consistency = (torch.where(usable, value, 0.0) for value in (overlap, consistency))
                weight = consistency * self.center_prior(priors, objects, pairs)
                total = pairs.sum_by_object((mu_total * consistency).exp() * weight).clamp(min=TINY)
                weight = (mu * consistency).exp() * weight / pairs.from_objects(total)  # eq. 5
                positive.append(pairs.to_dense(weight))
                probability = self.negative_probability(overlap.detach(), pairs, objects)  # eq. 6
                pairs.scatter_by_class(probability, objects.labels, negative, reduce="last")
                if sizes is not None:
                    size = pairs.from_objects(sizes_of(objects.boxes)).expand_as(probability)
                    pairs.scatter_by_class(size, objects.labels, sizes, reduce="last")
            inside_class, negative = (t.transpose(1, 2) for t in (negative < OUTSIDE, negative.clamp_(max=1)))
            sizes = None if sizes is None else sizes.transpose(1, 2)
            return DualWeights(torch.cat(positive, 1).transpose(1, 2), negative, inside_class, sizes)
