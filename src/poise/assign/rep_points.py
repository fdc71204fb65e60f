"""RepPoints (Yang et al. 2019, section 4.2): by position for the initial boxes, by overlap for the refined ones.

The initial boxes of objects are supervised at one point each: the nearest on the level of the object's size. The
overlap of those boxes with the objects decides the assignment of the refined boxes and classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.assign.max_iou import MaxIoU
from poise.pairwise import all_pairs, chunks_of_objects, highest_value_wins
from poise.structures import Assignment, GroundTruth, Priors, RefinedPredictions

SMALLEST = 1e-6  # px: sides of objects count as at least this


@dataclass(frozen=True)
class NearestPoint:
    """One point for each object: the nearest to its center, on one level.

    The level is the one whose stride is the object's size (the root of its area) over ``scale``, rounded down to a
    power of two; beyond the pyramid its finest or coarsest. Distances are in widths and heights of the object. A point
    that is nearest to several objects is assigned to the closest of them, the others have no positive; ties go to the
    lowest index. Points beyond an image's own padding are ignored.
    """

    scale: float = 4.0
    divisor: int = 32

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"NearestPoint(scale={self.scale}): must be positive")

    @torch.no_grad()
    def __call__(self, predictions: RefinedPredictions, truth: GroundTruth) -> Assignment:
        priors, points = predictions.priors, len(predictions.priors.strides)
        reachable = priors.within(truth.padded_sizes(self.divisor)).expand(len(truth.boxes), -1)
        usable, chunks = reachable & predictions.finite(), []
        for objects in chunks_of_objects(truth, points, dense=True):
            pairs = all_pairs(objects.valid, usable)
            chunks.append(pairs.to_dense(self.distances(priors, objects.boxes), fill=torch.inf).min(2))
        distance, nearest = (torch.cat(parts, 1)[..., None] for parts in zip(*chunks, strict=True))
        best = highest_value_wins(nearest, -distance, distance < torch.inf, points)
        return Assignment(best.index, best.found, ~reachable, best.found.float())

    def distances(self, priors: Priors, boxes: Tensor) -> Tensor:
        """From each object (B,g,4) to each point of its level, in its own sides (B,g,N); infinite to other levels."""
        sides = (boxes[..., 2:] - boxes[..., :2]).float().clamp(min=SMALLEST)
        x, y = (plane[:, None] for plane in priors.centers.float().unbind(-1))
        x1, y1, x2, y2 = (plane[..., None] for plane in boxes.float().unbind(-1))
        width, height = (plane[..., None] for plane in sides.unbind(-1))
        distance = (((x - (x1 + x2) / 2) / width).square() + ((y - (y1 + y2) / 2) / height).square()).sqrt()
        level = priors.strides.float().log2().floor()
        wanted = (sides / self.scale).log2().mean(-1, keepdim=True).floor()
        wanted = torch.minimum(torch.maximum(wanted, level.amin()), level.amax())
        return torch.where(level == wanted, distance, torch.inf)


@dataclass(frozen=True)
class FirstBoxOverlap:
    """``overlap`` of objects with the initial boxes, in the place of anchors (and with its ties).

    Priors beyond an image's own padding (to ``overlap.divisor``) are ignored, wherever their initial box lies.
    """

    overlap: MaxIoU = MaxIoU(0.5, 0.4, 0.0)

    @torch.no_grad()
    def __call__(self, predictions: RefinedPredictions, truth: GroundTruth) -> Assignment:
        reachable, finite = self.overlap.reachable(predictions.priors, truth), predictions.finite()
        initial = predictions.initial_boxes.float()
        boxes = torch.where((reachable & finite)[..., None], initial, 0.0)  # a box without area overlaps nothing
        found = self.overlap.assign(boxes, reachable, truth)
        return replace(found, positive=found.positive & finite)
