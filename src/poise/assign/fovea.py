"""FoveaBox assignment: the cells in the middle of an object, on each level that serves its size (Kong et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.boxes import area
from poise.pairwise import BestObject, Objects, chunks_of_objects, inside, only_finite
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class Fovea:
    """Assignment by position and size.

    An object is shrunk around its center by ``sigma``; cells with their middle in that part are positive, on each
    level whose range contains the square root of the object's area. Of several objects the smallest wins, ties to the
    lowest index. Parts beyond the map are moved to its last cells, as in the original. Cells in the padding count as
    well.
    """

    sigma: float = 0.4
    ranges: tuple[tuple[float, float], ...] = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))  # px, a level

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1 or any(low > high for low, high in self.ranges):
            raise ValueError(f"{self}: sigma lies in (0,1], every range ascends")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors, start, levels = predictions.priors, 0, []
        if len(priors.level_sizes) > len(self.ranges):
            raise ValueError(f"{self} serves {len(self.ranges)} levels, the head has {len(priors.level_sizes)}")
        centers = priors.centers[0].float() / priors.strides[:, None]  # of a cell: its corner or its middle, rounded
        cells = (centers + 0.25).floor()  # (N,2): column, row
        for size, (low, high) in zip(priors.level_sizes, self.ranges, strict=False):
            level, stride = cells[start : start + size], priors.strides[start]
            points = Priors(level.repeat(1, 2)[None], torch.ones_like(level[:, 0]), (size,))
            best = BestObject.none((len(truth.boxes), size), truth.boxes.device)
            for objects in chunks_of_objects(truth, size, planes_alive=8):
                root_area = area(objects.boxes).clamp(min=0).sqrt()
                serves = objects.valid & (root_area >= low) & (root_area <= high)
                pairs = inside(points, self.shrunk(objects, stride, level.amax(0), serves))
                best = best.update(pairs, pairs.from_objects(-root_area), objects)  # the smallest area wins
            levels.append(best)
            start += size
        positive = only_finite(predictions, torch.cat([best.found for best in levels], 1))
        index = torch.cat([best.index for best in levels], 1)
        return Assignment(index, positive, torch.zeros_like(positive), positive.float())

    def shrunk(self, objects: Objects, stride: Tensor, last: Tensor, serves: Tensor) -> Objects:
        """Boxes around the positive cells of objects that a level serves, in strides of the level."""
        start, end = (objects.boxes / stride).split(2, -1)
        half = 0.5 * (end - start)
        first = (start + (1 - self.sigma) * half - 0.5).ceil()
        final = (start + (1 + self.sigma) * half - 0.5).floor()
        first, final = (cell.clamp(min=0).minimum(last) for cell in (first, final))
        return replace(objects, boxes=torch.cat((first - 0.5, final + 0.5), -1), valid=serves)
