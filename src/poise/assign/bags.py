"""Candidate bags: which places may answer to an object at all, before anything is predicted.

A bag maps ``(priors, boxes (B,G,4), labels (B,G))`` to weights (B,G,N) in [0,1]. Bags look at positions only; whether
a place lies inside the object is the assigner's own question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.planes import smallest
from poise.structures import Priors

Bag = Callable[[Priors, Tensor, Tensor], Tensor]


def steps_from_center(priors: Priors, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """x and y from each object's centre to each place, in strides of the place, both (B,G,N)."""
    x, y = (plane[:, None] for plane in priors.centers.float().unbind(-1))
    x1, y1, x2, y2 = (plane[..., None] for plane in boxes.unbind(-1))
    return (x - (x1 + x2) / 2) / priors.strides, (y - (y1 + y2) / 2) / priors.strides


def gaussian(priors: Priors, boxes: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of the distance in strides around ``mean`` with width ``sigma``, both (B,G,2) or (2,): (B,G,N)."""
    x, y = steps_from_center(priors, boxes)
    x = (x - mean[..., 0, None]).square() / (2 * sigma[..., 0, None].square())
    y = (y - mean[..., 1, None]).square() / (2 * sigma[..., 1, None].square())
    return (-(x + y)).exp()


@dataclass(frozen=True)
class SoftCenter:
    """A Gaussian around the object's centre, ``sigma`` strides wide (DW's default)."""

    sigma: float = 1.11

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"SoftCenter(sigma={self.sigma}): the width in strides must be positive")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor) -> Tensor:
        return gaussian(priors, boxes, boxes.new_zeros(2), boxes.new_full((2,), self.sigma))


@dataclass(frozen=True)
class Above:
    """All places where another bag exceeds ``threshold``, with equal weight (a distance threshold)."""

    bag: Bag
    threshold: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"Above(threshold={self.threshold}): 0 <= threshold < 1")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor) -> Tensor:
        return (self.bag(priors, boxes, labels) > self.threshold).float()


@dataclass(frozen=True)
class Nearest:
    """The ``topk`` places of each level that are nearest to the object's centre, with equal weight."""

    topk: int = 9

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"Nearest(topk={self.topk}): at least one place a level is needed")

    def __call__(self, priors: Priors, boxes: Tensor, labels: Tensor) -> Tensor:
        x, y = steps_from_center(priors, boxes)
        levels = x.square().add(y.square()).split(priors.level_sizes, 2)
        nearest = [smallest(level, min(self.topk, level.shape[2]))[1] for level in levels]
        chosen = [torch.zeros_like(level).scatter(2, index, 1.0) for level, index in zip(levels, nearest, strict=True)]
        return torch.cat(chosen, 2)
