"""FoveaBox assignment: the cells in the middle of an object, on every level that serves its size (Kong et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.boxes import area
from poise.pairwise.chunks import object_chunks
from poise.pairwise.listing import finite_of
from poise.pairwise.pairs import pairs_inside
from poise.pairwise.planes import owner_of, smallest_first
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class Fovea:
    """Assignment by position and size.

    An object is shrunk around its center by ``sigma``; the cells whose middle lies in that part answer to it, on
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
        self._check(priors)
        sides = area(truth.boxes).clamp(min=0).sqrt()
        order, claim = smallest_first(sides, truth.valid)
        best = truth.boxes.new_zeros(batch, places)
        for part in object_chunks(batch * TEMPORARIES, places, truth.boxes.shape[1]):
            claims = self._claims(priors, truth.boxes[:, part], sides[:, part], claim[:, part])
            best = torch.maximum(best, claims)
        positive = finite_of(predictions, best > 0)
        return Assignment(owner_of(best, order), positive, torch.zeros_like(positive), positive.float())

    def _claims(self, priors: Priors, objects: Tensor, sides: Tensor, claim: Tensor) -> Tensor:
        """The greatest claim (B,g) of objects (B,g,4) on each cell in their middle whose level serves their ``sides``.

        (B,N), -infinity where there is none.
        """
        cells = (priors.centers[0].float() / priors.strides[:, None]).floor()  # (N,2): column, row
        levels, start = [], 0
        for size, (low, high) in zip(priors.level_sizes, self.ranges, strict=False):
            level = cells[None, start : start + size]
            middle = self._middle(objects / priors.strides[start], level.amax(1))
            pairs = pairs_inside(level, middle, (claim > 0) & (sides >= low) & (sides <= high))
            levels.append(pairs.place_most(pairs.of_objects(claim)))
            start += size
        return torch.cat(levels, 1)

    def _middle(self, objects: Tensor, last: Tensor) -> Tensor:
        """Boxes (B,g,4) around the cells that answer to objects (B,g,4), both in strides of the level."""
        start, end = objects[..., :2], objects[..., 2:]
        half = 0.5 * (end - start)
        first = (start + (1 - self.sigma) * half - 0.5).ceil()
        final = (start + (1 + self.sigma) * half - 0.5).floor()
        first, final = (cell.clamp(min=0).minimum(last) for cell in (first, final))
        return torch.cat((first - 0.5, final + 0.5), -1)

    def _check(self, priors: Priors) -> None:
        if len(priors.level_sizes) > len(self.ranges):
            raise ValueError(f"{self} serves {len(self.ranges)} levels, the head has {len(priors.level_sizes)}")
