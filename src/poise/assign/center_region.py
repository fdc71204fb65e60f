"""FCOS assignment: points inside an object, near its center, on the level of its size (Tian et al. 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.boxes import area
from poise.pairwise.chunks import object_chunks
from poise.pairwise.listing import finite_of
from poise.pairwise.pairs import Pairs, pairs_inside
from poise.pairwise.planes import around_middle, depth, owner_of, smallest_first
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class CenterRegion:
    """Assignment by position and size.

    A point answers to an object when it lies strictly inside the object (with ``radius`` > 0: inside the part of it
    that is within ``radius`` strides of its center) and its farthest side is within the level's range. Of several
    objects the smallest wins, ties to the lowest index. Every point counts, padding included.
    """

    reads: ClassVar[str] = "priors"
    radius: float = 1.5  # strides; 0: the whole object
    limits: tuple[float, ...] = (64, 128, 256, 512)  # px: the farthest side of an object moves it one level up

    def __post_init__(self) -> None:
        if self.radius < 0 or list(self.limits) != sorted(self.limits):
            raise ValueError(f"CenterRegion(radius={self.radius}, limits={self.limits}): radius >= 0, limits ascending")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        batch, places = len(truth.boxes), len(priors.strides)
        order, claim = smallest_first(area(truth.boxes), truth.valid)
        best = truth.boxes.new_zeros(batch, places)
        for part in object_chunks(batch * TEMPORARIES, places, truth.boxes.shape[1]):
            pairs = pairs_inside(priors.centers, truth.boxes[:, part], truth.valid[:, part])
            fits = self._fits(priors, truth.boxes[:, part], pairs)
            best = torch.maximum(best, pairs.place_most(fits * pairs.of_objects(claim[:, part])))
        positive = finite_of(predictions, best > 0)
        return Assignment(owner_of(best, order), positive, torch.zeros_like(positive), positive.float())

    def _fits(self, priors: Priors, objects: Tensor, pairs: Pairs) -> Tensor:
        """Whether the place of each pair is near the object's center and on the level of the object's size."""
        x, y = (pairs.of_places(z) for z in priors.centers.float().unbind(-1))
        x1, y1, x2, y2 = (pairs.of_objects(side) for side in objects.unbind(-1))
        farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
        low, high = (pairs.of_places(limit[None]) for limit in self._ranges(priors))
        fits = (farthest >= low) & (farthest <= high)
        if self.radius == 0:
            return fits
        square = around_middle((x1, y1, x2, y2), self.radius * pairs.of_places(priors.strides[None]))
        return fits & (depth(x, y, square) > 0)

    def _ranges(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Least and greatest farthest side of each place's level, (N,) px."""
        levels = len(priors.level_sizes)
        if levels > len(self.limits) + 1:
            raise ValueError(
                f"CenterRegion(limits={self.limits}) serves {len(self.limits) + 1} levels, the head has {levels}"
            )
        bounds = [-1.0, *self.limits[: levels - 1], 1e8]
        like = priors.strides
        low = [like.new_full((size,), bounds[i]) for i, size in enumerate(priors.level_sizes)]
        high = [like.new_full((size,), bounds[i + 1]) for i, size in enumerate(priors.level_sizes)]
        return torch.cat(low), torch.cat(high)
