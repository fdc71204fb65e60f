"""Candidate bags: how much each place may answer to an object at all, before anything is predicted.

A bag maps ``(priors, boxes (B,G,4), labels (B,G), pairs)`` to weights in [0,1] of the pairs. Bags look at positions
only; whether a place lies inside the object is the assigner's own question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.pairwise.pairs import Pairs
from poise.pairwise.planes import center_planes, sides_of, smallest
from poise.structures import Priors

Bag = Callable[[Priors, Tensor, Tensor, Pairs], Tensor]


def gaussian(priors: Priors, boxes: Tensor, mean: Tensor, sigma: Tensor, pairs: Pairs) -> Tensor:
    """Gaussian of the distance from the center in strides, around ``mean`` with width ``sigma``, both (B,G,2)."""
    strides = pairs.of_places(priors.strides[None])

    def along(axis: int) -> Tensor:
        middle = (boxes[..., axis] + boxes[..., axis + 2]) / 2
        steps = (pairs.of_places(priors.centers[..., axis].float()) - pairs.of_objects(middle)) / strides
        width = pairs.of_objects(2 * sigma[..., axis].square())
        return (steps - pairs.of_objects(mean[..., axis])).square() / width

    return (-(along(0) + along(1))).exp()


@dataclass(frozen=True)
class GaussianCenterPrior:
    """A Gaussian around the object's center, ``sigma`` strides wide (DW's default)."""

    sigma: float = 1.11

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"GaussianCenterPrior(sigma={self.sigma}): the width in strides must be positive")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
        mean = torch.zeros_like(boxes[..., :2])
        return gaussian(priors, boxes, mean, torch.full_like(mean, self.sigma), pairs)


@dataclass(frozen=True)
class ThresholdedCenterPrior:
    """All places where another bag exceeds ``threshold``, with equal weight (a distance threshold)."""

    bag: Bag
    threshold: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"ThresholdedCenterPrior(threshold={self.threshold}): 0 <= threshold < 1")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
        return (self.bag(priors, boxes, labels, pairs) > self.threshold).float()


@dataclass(frozen=True)
class TopKCenterPrior:
    """The ``topk`` places of each level that are nearest to the object's center, with equal weight."""

    topk: int = 9

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"TopKCenterPrior(topk={self.topk}): at least one place a level is needed")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
        (x, y), (x1, y1, x2, y2) = center_planes(priors), sides_of(boxes)
        x, y = (x - (x1 + x2) / 2) / priors.strides, (y - (y1 + y2) / 2) / priors.strides
        levels = x.square().add(y.square()).split(priors.level_sizes, 2)
        nearest = [smallest(level, min(self.topk, level.shape[2]))[1] for level in levels]
        chosen = [torch.zeros_like(level).scatter(2, index, 1.0) for level, index in zip(levels, nearest, strict=True)]
        return pairs.of_all(torch.cat(chosen, 2))
