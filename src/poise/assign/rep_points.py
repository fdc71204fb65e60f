"""RepPoints' two assignments (Yang et al. 2019, section 4.2): by place for the first boxes, by overlap for the second.

The first boxes of objects are taught at one point each: the nearest on the level of the object's size. What those
boxes then overlap decides which places answer to which object for good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.max_iou import MaxIoU
from poise.pairwise.chunks import object_chunks
from poise.pairwise.planes import smallest
from poise.structures import Assignment, GroundTruth, Priors, RefinedPredictions

SMALLEST = 1e-6  # px: sides of objects count as at least this


@dataclass(frozen=True)
class NearestPoint:
    """One place an object: the nearest to its center, on one level.

    The level is the one whose stride is the object's size (the root of its area) over ``scale``, rounded down to a
    power of two; beyond the pyramid its finest or coarsest. Distances are in widths and heights of the object. A place
    that is nearest to several objects goes to the one it is nearest to, the others go without; ties to the lowest
    index. Places beyond an image's own padding are ignored.
    """

    reads: ClassVar[str] = "priors"
    scale: float = 4.0
    divisor: int = 32

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"NearestPoint(scale={self.scale}): must be positive")

    @torch.no_grad()
    def __call__(self, predictions: RefinedPredictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        batch, places = len(truth.boxes), len(priors.strides)
        reachable = priors.within(truth.padded_sizes(self.divisor)).expand(batch, -1)
        usable_places = (reachable & predictions.finite())[:, None]
        found, place, distance = [], [], []
        for part in object_chunks(batch, places, truth.boxes.shape[1]):
            apart = self._distances(priors, truth.boxes[:, part])
            apart = torch.where(usable_places & truth.valid[:, part, None], apart, torch.inf)
            usable, nearest = smallest(apart, 1)
            found.append(usable.squeeze(2))
            place.append(nearest.squeeze(2))
            distance.append(apart.gather(2, nearest).squeeze(2))
        index, positive = _owners(torch.cat(found, 1), torch.cat(place, 1), torch.cat(distance, 1), places)
        return Assignment(index, positive, ~reachable, positive.float())

    def _distances(self, priors: Priors, boxes: Tensor) -> Tensor:
        """From each object (B,g,4) to each place of its level, in its own sides (B,g,N); infinite to other levels."""
        sides = (boxes[..., 2:] - boxes[..., :2]).float().clamp(min=SMALLEST)
        x, y = (plane[:, None] for plane in priors.centers.float().unbind(-1))
        x1, y1, x2, y2 = (plane[..., None] for plane in boxes.float().unbind(-1))
        width, height = (plane[..., None] for plane in sides.unbind(-1))
        apart = (((x - (x1 + x2) / 2) / width).square() + ((y - (y1 + y2) / 2) / height).square()).sqrt()
        level = priors.strides.float().log2().floor()
        wanted = (sides / self.scale).log2().mean(-1, keepdim=True).floor()
        wanted = torch.minimum(torch.maximum(wanted, level.amin()), level.amax())
        return torch.where(level == wanted, apart, torch.inf)


def _owners(found: Tensor, place: Tensor, distance: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """From each object's place (B,G) to each place's object (B,N) and whether it has one."""
    batch, objects = place.shape
    distance = torch.where(found, distance, torch.inf)
    best = distance.new_full((batch, places), torch.inf).scatter_reduce(1, place, distance, "amin")
    owner = torch.arange(objects, device=place.device).expand(batch, -1)
    owner = torch.where(found & (distance == best.gather(1, place)), owner, objects)
    index = torch.full((batch, places), objects, device=place.device).scatter_reduce(1, place, owner, "amin")
    return torch.where(index < objects, index, 0), index < objects


@dataclass(frozen=True)
class FirstBoxOverlap:
    """``overlap`` of objects with the boxes that places predicted first, in the anchors' place (and its ties).

    Places beyond an image's own padding (to ``overlap.divisor``) are ignored, wherever their first box lies.
    """

    reads: ClassVar[str] = "predictions"
    overlap: MaxIoU = MaxIoU(0.5, 0.4, 0.0)

    @torch.no_grad()
    def __call__(self, predictions: RefinedPredictions, truth: GroundTruth) -> Assignment:
        reachable, finite = self.overlap.reachable(predictions.priors, truth), predictions.finite()
        first = predictions.initial_boxes.float()
        boxes = torch.where((reachable & finite)[..., None], first, 0.0)  # a box without area overlaps nothing
        found = self.overlap.on(boxes, reachable, truth)
        return replace(found, positive=found.positive & finite)
