"""FCOS assignment: points inside an object, near its center, on the level of its size (Tian et al. 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.boxes import area, distance_inside_center, with_least_sides
from poise.pairwise import BestObject, Objects, Pairs, chunks_of_objects, inside, only_finite
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class CenterRegion:
    """Assignment by position and size (center sampling).

    A point is positive for an object when it lies strictly inside the object (with ``radius`` > 0: also within
    ``radius`` strides of its center) and the farthest side is within the range of the point's level. Of several
    objects the smallest wins, ties to the lowest index. Points in the padding count as well. ``floor`` px: in the test
    of "inside", shorter sides grow to it (STAL of YOLO26: 16).
    """

    radius: float = 1.5  # strides; 0: the whole object
    limits: tuple[float, ...] = (64, 128, 256, 512)  # px: a farther side moves the object one level up
    floor: float = 0.0

    def __post_init__(self) -> None:
        if min(self.radius, self.floor) < 0 or list(self.limits) != sorted(self.limits):
            raise ValueError(f"{self}: radius and floor are not negative, limits ascending")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        best = BestObject.none((len(truth.boxes), len(priors.strides)), truth.boxes.device)
        for objects in chunks_of_objects(truth, len(priors.strides), planes_alive=8):
            least = objects if self.floor == 0 else replace(objects, boxes=with_least_sides(objects.boxes, self.floor))
            pairs = inside(priors, least)
            pairs = pairs.where(self.fits(priors, objects, pairs))
            best = best.update(pairs, pairs.from_objects(-area(objects.boxes)), objects)  # the smallest area wins
        positive = only_finite(predictions, best.found)
        return Assignment(best.index, positive, torch.zeros_like(positive), positive.float())

    def fits(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        """Whether the point of each pair is near the object's center and on the level of the object's size."""
        points, boxes = pairs.from_priors(priors.centers.float()), pairs.from_objects(objects.boxes)
        (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
        farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))  # max(l, t, r, b)
        low, high = (pairs.from_priors(limit[None]) for limit in self.ranges(priors))
        fits = (farthest >= low) & (farthest <= high)
        if self.radius == 0:
            return fits
        radius = self.radius * pairs.from_priors(priors.strides[None])
        return fits & (distance_inside_center(points, boxes, radius) > 0)

    def ranges(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Least and greatest distance to the farthest side on the level of each point, (N,) px."""
        sizes = priors.level_sizes
        if len(sizes) > len(self.limits) + 1:
            raise ValueError(
                f"CenterRegion(limits={self.limits}) serves {len(self.limits) + 1} levels, the head has {len(sizes)}"
            )
        bounds = [-1.0, *self.limits[: len(sizes) - 1], 1e8]
        low = [priors.strides.new_full((size,), bounds[i]) for i, size in enumerate(sizes)]
        high = [priors.strides.new_full((size,), bounds[i + 1]) for i, size in enumerate(sizes)]
        return torch.cat(low), torch.cat(high)
