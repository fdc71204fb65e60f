"""FoveaBox assignment: the cells in the middle of an object, on every level that serves its size (Kong et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.planes import owner_of, smallest_first
from poise.assign.protocol import object_chunks
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
        self._check(priors)
        cells = (priors.centers[0].float().T / priors.strides).floor()  # (2,N): column, row
        sides = area(truth.boxes).clamp(min=0).sqrt()
        order, claim = smallest_first(sides, truth.valid)
        best = truth.boxes.new_zeros(batch, places)
        for part in object_chunks(batch * TEMPORARIES, places, truth.boxes.shape[1], best.device):
            fits = self._within(cells, priors, truth.boxes[:, part], sides[:, part, None])
            best = torch.maximum(best, fits.mul_(claim[:, part, None]).amax(1))
        positive = (best > 0) & predictions.finite()
        return Assignment(owner_of(best, order), positive, torch.zeros_like(positive), positive.float())

    def _within(self, cells: Tensor, priors: Priors, objects: Tensor, sides: Tensor) -> Tensor:
        """1 for cells (2,N) in the middle of objects (B,g,4) whose ``sides`` (B,g,1) their level serves, (B,g,N)."""
        levels, start = [], 0
        for size, (low, high) in zip(priors.level_sizes, self.ranges, strict=False):
            slack = []
            for axis in (0, 1):
                cell = cells[axis, start : start + size]
                first, final = self._middle(objects, axis, priors.strides[start], cell.amax())
                slack.append(torch.minimum(cell - first, final - cell))
            levels.append(torch.minimum(*slack).ge_(0).mul_((sides >= low) & (sides <= high)))
            start += size
        return torch.cat(levels, 2)

    def _middle(self, objects: Tensor, axis: int, stride: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """First and last cell of a level that answers to each object along an axis, both (B,g,1)."""
        start, end = (objects[..., side, None] / stride for side in (axis, axis + 2))
        half = 0.5 * (end - start)
        first = (start + (1 - self.sigma) * half - 0.5).ceil()
        final = (start + (1 + self.sigma) * half - 0.5).floor()
        return first.clamp(min=0).minimum(last), final.clamp(min=0).minimum(last)

    def _check(self, priors: Priors) -> None:
        if len(priors.level_sizes) > len(self.ranges):
            raise ValueError(f"{self} serves {len(self.ranges)} levels, the head has {len(priors.level_sizes)}")
