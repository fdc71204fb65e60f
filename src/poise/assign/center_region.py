"""FCOS assignment: points inside an object, near its centre, on the level of its size (Tian et al. 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.protocol import lowest_index, object_chunks
from poise.boxes import area
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class CenterRegion:
    """Assignment by position and size.

    A point answers to an object when it lies strictly inside the object (with ``radius`` > 0: inside the part of it
    that is within ``radius`` strides of its centre) and its farthest side is within the level's range. Of several
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
        low, high = self._ranges(priors)
        sizes = area(truth.boxes)
        best = truth.boxes.new_full((batch, places), torch.inf)
        index = torch.zeros(batch, places, dtype=torch.int64, device=best.device)
        for part in object_chunks(batch, places, truth.boxes.shape[1]):
            near, farthest = _distances(priors, truth.boxes[:, part], self.radius)
            fits = near & (farthest >= low[:, None]) & (farthest <= high[:, None]) & truth.valid[:, None, part]
            size = torch.where(fits, sizes[:, None, part], torch.inf)
            value = size.amin(2)
            better = value < best
            index = torch.where(better, lowest_index(size == value[..., None]) + part.start, index)
            best = torch.where(better, value, best)
        positive = (best < torch.inf) & predictions.finite()
        return Assignment(index, positive, torch.zeros_like(positive), positive.float())

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


def _distances(priors: Priors, objects: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Whether each place is near each object's centre and inside it, and its farthest side, both (B,N,g)."""
    x, y = (plane[..., None] for plane in priors.centers.float().unbind(-1))
    x1, y1, x2, y2 = (plane[:, None] for plane in objects.unbind(-1))
    farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
    if radius > 0:
        reach = radius * priors.strides[:, None]
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        x1, y1 = torch.maximum(cx - reach, x1), torch.maximum(cy - reach, y1)
        x2, y2 = torch.minimum(cx + reach, x2), torch.minimum(cy + reach, y2)
    depth = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))
    return depth > 0, farthest
