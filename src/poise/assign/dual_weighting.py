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

from poise import boxes as geometry
from poise.assign.bags import Bag, SoftCenter
from poise.assign.protocol import object_chunks
from poise.structures import GroundTruth, PairWeights, Predictions

TEMPORARIES = 4  # a pair needs this many times the memory that streaming allows for
TINY = 1e-12


@dataclass(frozen=True)
class DualWeights(PairWeights):
    """``positive`` (B,N,G), ``negative`` (B,N,C): the probability of being a negative, 1 outside every object."""

    inside: Tensor  # (B,N,C) bool: within an object of that class


@dataclass(frozen=True)
class NormalizedIoU:
    """1 at IoU 0.5 and below, and 0 at the best IoU that the object has (the authors' code)."""

    gamma: float = 2.0

    def __call__(self, overlap: Tensor, inside: Tensor) -> Tensor:
        """Probabilities (B,G,N) of overlaps (B,G,N); each object's range is taken over its ``inside`` places."""
        value = (1 - overlap**self.gamma) / (1 - 0.5**self.gamma)
        low = torch.where(inside, value, torch.inf).amin(2, keepdim=True)
        high = torch.where(inside, value, -torch.inf).amax(2, keepdim=True).clamp(max=1)
        spread = (value - low + TINY) / (high - low + TINY)
        return torch.where(overlap < 0.5, 1.0, spread)


@dataclass(frozen=True)
class LinearIoU:
    """-k IoU^gamma + b through (0.5, 1) and (``zero``, 0), cut to [0,1] (the article's eq. 6)."""

    gamma: float = 2.0
    zero: float = 0.95

    def __call__(self, overlap: Tensor, inside: Tensor) -> Tensor:
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
    bag: Bag = SoftCenter()
    beta: float = 5.0  # weight of the box in the consistency
    mu: float = 5.0  # sharpness of the positive weight
    mu_total: float = 3.0  # the same in the sum it is divided by; equal to ``mu``: the article's normalised weight
    location: Callable[[Tensor, Tensor, float], Tensor] = box_likelihood
    overlap_function: Callable[[Tensor, Tensor], Tensor] = NormalizedIoU()
    detached: bool = True  # False lets gradients through the positive weights

    def __post_init__(self) -> None:
        if min(self.beta, self.mu, self.mu_total) < 0:
            raise ValueError(
                f"DualWeighting(beta={self.beta}, mu={self.mu}, mu_total={self.mu_total}): none is negative"
            )

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> DualWeights:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
            # Places last: every sum over them then has one order, whatever the batch and its padding.
            scores = predictions.float().scores().transpose(1, 2).contiguous()
            batch, objects = truth.labels.shape
            owned = torch.zeros_like(scores, dtype=torch.bool)
            negative = torch.ones_like(scores)
            parts = []
            for part in object_chunks(batch * TEMPORARIES, scores.shape[2], objects):
                boxes, labels = truth.boxes[:, part], truth.labels[:, part]
                depth = geometry.depth_inside(predictions.priors.centers.float(), boxes).transpose(1, 2)
                inside = ((depth > 0) & truth.valid[:, part, None]).contiguous()
                overlap, consistency = self._consistency(predictions, scores, boxes, labels, inside)
                parts.append(self._positive(consistency, self.bag(predictions.priors, boxes, labels) * inside))
                probability = self.overlap_function(overlap.detach(), inside).detach()
                held, value = of_classes(probability, inside, labels, scores.shape[1])
                negative = torch.where(held, value, negative)
                owned |= held
            return DualWeights(torch.cat(parts, 1).transpose(1, 2), negative.transpose(1, 2), owned.transpose(1, 2))

    def _consistency(
        self, predictions: Predictions, scores: Tensor, boxes: Tensor, labels: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IoU and consistency of prediction and object, (B,g,N), 0 outside and where not finite."""
        predicted, wanted = predictions.boxes.float()[:, None], boxes[:, :, None]
        overlap = geometry.iou(predicted, wanted)
        likelihood = self.location(overlap, geometry.giou(predicted, wanted), self.beta)
        score = scores.gather(1, labels[..., None].expand(-1, -1, scores.shape[2]))
        consistency = score * likelihood
        usable = inside & predictions.finite()[:, None] & consistency.isfinite() & overlap.isfinite()
        return torch.where(usable, overlap, 0.0), torch.where(usable, consistency, 0.0)

    def _positive(self, consistency: Tensor, prior: Tensor) -> Tensor:
        """Weights (B,g,N); eq. 5 of the article when ``mu_total`` equals ``mu``."""
        weight = (self.mu * consistency).exp() * consistency * prior
        total = ((self.mu_total * consistency).exp() * consistency * prior).sum(2, keepdim=True)
        return weight / total.clamp(min=TINY)


def of_classes(probability: Tensor, inside: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """From objects (B,g,N) to classes (B,C,N): whether one of the class holds the place, and the last one's word."""
    batch, count, places = probability.shape
    order = torch.arange(1, count + 1, device=labels.device)[:, None]
    claims = torch.where(inside, order, 0)
    last = claims.new_zeros(batch, num_classes, places)
    last = last.scatter_reduce(1, labels[..., None].expand_as(claims), claims, "amax")
    return last > 0, probability.gather(1, (last - 1).clamp(min=0))
