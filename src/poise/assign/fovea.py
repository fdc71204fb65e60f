"""FoveaBox assignment: the cells in the middle of an object, on every level that serves its size (Kong et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.protocol import lowest_index, object_chunks
from poise.boxes import area
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TEMPORARIES = 4  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class Fovea:
    """Assignment by position and size.

    An object is shrunk around its centre by ``sigma``; the cells whose middle lies in that part answer to it, on
    every level whose range holds the square root of its area. Of several objects the smallest wins, ties to the
    lowest index. What lies beyond the map is moved to its last cells, as in the original. Every cell counts, padding
    included.
    """

    reads: ClassVar[str] = "priors"
    sigma: float = 0.4
    ranges: tuple[tuple[float, float], ...] = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))  # px, a level

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1 or any(low > high for low, high in self.ranges):
            raise ValueError(f"{self}: sigma lies in (0,1], every range ascends")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        batch, places = len(truth.boxes), len(priors.strides)
        cells, last = _cells(priors)
        low, high = self._ranges(priors)
        best = truth.boxes.new_full((batch, places), torch.inf)
        index = torch.zeros(batch, places, dtype=torch.int64, device=best.device)
        for part in object_chunks(batch * TEMPORARIES, places, truth.boxes.shape[1]):
            sides = area(truth.boxes[:, None, part]).clamp(min=0).sqrt()
            served = (sides >= low[:, None]) & (sides <= high[:, None]) & truth.valid[:, None, part]
            within = self._within(cells, last, priors.strides, truth.boxes[:, part])
            size = torch.where(served & within, sides, torch.inf)
            value = size.amin(2)
            better = value < best
            index = torch.where(better, lowest_index(size == value[..., None]) + part.start, index)
            best = torch.where(better, value, best)
        positive = (best < torch.inf) & predictions.finite()
        return Assignment(index, positive, torch.zeros_like(positive), positive.float())

    def _within(self, cells: Tensor, last: Tensor, strides: Tensor, objects: Tensor) -> Tensor:
        """Which cells (N,2: column, row) lie in the middle of each object (B,g,4), (B,N,g)."""
        inside = []
        for axis in (0, 1):
            start, end = (objects[:, None, :, side] / strides[:, None] for side in (axis, axis + 2))
            half, cell, limit = 0.5 * (end - start), cells[:, axis, None], last[:, axis, None]
            first = (start + (1 - self.sigma) * half - 0.5).ceil()
            final = (start + (1 + self.sigma) * half - 0.5).floor()
            first, final = (bound.clamp(min=0).minimum(limit) for bound in (first, final))
            inside.append((cell >= first) & (cell <= final))
        return inside[0] & inside[1]

    def _ranges(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Least and greatest size of each place's level, (N,) px."""
        if len(priors.level_sizes) > len(self.ranges):
            raise ValueError(f"{self} serves {len(self.ranges)} levels, the head has {len(priors.level_sizes)}")
        bounds = list(zip(self.ranges, priors.level_sizes, strict=False))
        low, high = (
            torch.cat([priors.strides.new_full((size,), limits[side]) for limits, size in bounds]) for side in (0, 1)
        )
        return low, high


def _cells(priors: Priors) -> tuple[Tensor, Tensor]:
    """Column and row of each place in its map, and those of the map's last cell, both (N,2) float32."""
    cells = (priors.centers[0].float() / priors.strides[:, None]).floor()
    last = [level.amax(0, keepdim=True).expand(len(level), 2) for level in cells.split(priors.level_sizes)]
    return cells, torch.cat(last)
