"""Center priors: how much each prior may count as a positive of each object, before anything is predicted (DW, sec. 3).

A center prior maps ``(priors, objects, pairs)`` to weights in [0,1] of the pairs, the candidate bag of each object. It
depends on positions only; whether a prior lies inside the object is decided by the assigner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.pairwise import Objects, Pairs, nearest_per_level
from poise.structures import Priors

CenterPriorFunction = Callable[[Priors, Objects, Pairs], Tensor]


def gaussian(priors: Priors, boxes: Tensor, mean: Tensor, sigma: Tensor, *, pairs: Pairs) -> Tensor:
    """Gaussian of the distance from the center in strides, around ``mean`` with width ``sigma``, both (B,G,2)."""
    centers = priors.centers.float()
    cells = torch.cat((centers, priors.strides[:, None].expand(*centers.shape[:2], 1)), -1)
    x, y, strides = pairs.from_priors(cells).unbind(-1)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    bags = pairs.from_objects(torch.cat((center, mean, 2 * sigma.square()), -1))
    center_x, center_y, mean_x, mean_y, width_x, width_y = bags.unbind(-1)
    across = ((x - center_x) / strides - mean_x).square() / width_x
    along = ((y - center_y) / strides - mean_y).square() / width_y
    return (-(across + along)).exp()


class CenterPrior(nn.Module):
    """The center prior as parameters of a head: one Gaussian per class, as in checkpoints of DW and AutoAssign.

    Args:
        num_classes: number of means and widths (both in strides, x and y).
        sigma: initial width.
        trained: whether they are trained (in AutoAssign, not in DW).
    """

    def __init__(self, num_classes: int, sigma: float, trained: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2), requires_grad=trained)
        self.sigma = nn.Parameter(torch.full((num_classes, 2), sigma), requires_grad=trained)

    def forward(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        """Return weights in [0,1] of the pairs."""
        mean, sigma = self.mean[objects.labels].float(), self.sigma[objects.labels].float()
        return gaussian(priors, objects.boxes, mean, sigma, pairs=pairs)


@dataclass(frozen=True)
class GaussianCenterPrior:
    """A Gaussian around the object's center, ``sigma`` strides wide (DW's default)."""

    sigma: float = 1.11

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"GaussianCenterPrior(sigma={self.sigma}): the width in strides must be positive")

    def __call__(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        mean = torch.zeros_like(objects.boxes[..., :2])
        return gaussian(priors, objects.boxes, mean, torch.full_like(mean, self.sigma), pairs=pairs)


@dataclass(frozen=True)
class ThresholdedCenterPrior:
    """All priors where another center prior exceeds ``threshold``, with equal weight (a distance threshold)."""

    center_prior: CenterPriorFunction
    threshold: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"ThresholdedCenterPrior(threshold={self.threshold}): 0 <= threshold < 1")

    def __call__(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        return (self.center_prior(priors, objects, pairs) > self.threshold).float()


@dataclass(frozen=True)
class DistanceCenterPrior:
    """All priors within ``radius`` strides of the object's center, with equal weight."""

    radius: float = 1.5

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"DistanceCenterPrior(radius={self.radius}): the radius in strides must be positive")

    def __call__(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        x1, y1, x2, y2 = pairs.from_objects(objects.boxes).unbind(-1)
        x, y = pairs.from_priors(priors.centers.float()).unbind(-1)
        distance = (x - (x1 + x2) / 2).square() + (y - (y1 + y2) / 2).square()
        return (distance < (self.radius * pairs.from_priors(priors.strides[None])).square()).float()


@dataclass(frozen=True)
class TopKCenterPrior:
    """The ``topk`` priors of each level that are nearest to the object's center, with equal weight."""

    topk: int = 9

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"TopKCenterPrior(topk={self.topk}): at least one prior a level is needed")

    def __call__(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        index, _ = nearest_per_level(priors, objects.boxes, self.topk)
        nearest = objects.boxes.new_zeros(*index.shape[:2], priors.boxes.shape[1])
        return pairs.from_dense(nearest.scatter(2, index, 1.0))
