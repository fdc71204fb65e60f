"""Maximum-IoU assignment: anchors, proposals (Faster R-CNN, RetinaNet).

A place is positive for the object that it overlaps most when their IoU reaches ``positive``, negative below
``negative`` and ignored between. With ``low_quality`` every object also claims the places that overlap it most of
all, so that no object goes without, as long as that overlap reaches ``least``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from poise.boxes import pairwise_iof
from poise.pairwise.chunks import object_chunks
from poise.pairwise.listing import finite_of
from poise.pairwise.overlaps import Overlaps, overlaps_with
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TINY = 1e-12  # an overlap below it is none
TEMPORARIES = 2  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class MaxIoU:
    """Assignment by overlap with the priors.

    Ties between objects: the lowest index; ties in the low-quality step: the highest (the original writes objects in
    order, later ones over earlier). ``ignore_iof`` > 0 ignores places that lie in a crowd region by more than that
    fraction of their own area; the published recipes leave it off (-1). Places outside an image's own padding are
    ignored.
    """

    reads: ClassVar[str] = "priors"
    positive: float = 0.5
    negative: float = 0.4
    least: float = 0.0
    low_quality: bool = True
    ignore_iof: float = -1.0
    divisor: int = 32  # padding of a single image; 0 keeps every place

    def __post_init__(self) -> None:
        if not 0 <= self.negative <= self.positive <= 1:
            raise ValueError(
                f"MaxIoU(positive={self.positive}, negative={self.negative}): 0 <= negative <= positive <= 1"
            )

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        reachable = self.reachable(predictions.priors, truth)
        found = self.on(predictions.priors.boxes, reachable, truth)
        return replace(found, positive=finite_of(predictions, found.positive))

    def reachable(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """Places within each image's own padding, (B,N) bool."""
        shape = (len(truth.boxes), len(priors.strides))
        if not self.divisor:
            return truth.valid.new_ones(shape)
        return priors.within(truth.padded_sizes(self.divisor)).expand(shape)

    def on(self, boxes: Tensor, reachable: Tensor, truth: GroundTruth) -> Assignment:
        """The same by the overlap with any boxes.

        Args:
            boxes: (B|1,N,4) xyxy in pixels.
            reachable: (B,N) bool; the others are ignored.
        """
        count = truth.labels.shape[1]
        overlaps = overlaps_with(boxes, reachable)
        order = torch.arange(count, device=boxes.device).float().expand_as(truth.labels)
        parts = object_chunks(len(reachable) * TEMPORARIES, reachable.shape[1], count)
        matches = (self._match(overlaps(truth.boxes[:, p], truth.valid[:, p]), order[:, p], count) for p in parts)
        overlap, first, claim = reduce(_joined, matches)
        claimed = claim > 0
        positive = (overlap >= max(self.positive, TINY)) | claimed
        out = overlap >= self.negative
        if self.ignore_iof > 0:
            covered = torch.where(truth.crowd[:, None], pairwise_iof(boxes.float(), truth.boxes), 0).amax(2)
            out = out | (covered > self.ignore_iof)
        index = torch.where(claimed, claim - 1, (count - first).clamp_(max=count - 1)).long()
        return Assignment(index, positive, out & ~positive | ~reachable, overlap)

    def _match(self, found: Overlaps, order: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What some objects (B,g), numbered by ``order`` (B,g), say of places, all (B,N) float32.

        The best overlap, ``count`` minus the first object of it, and 1 more than the last that claims the place (0:
        none).
        """
        best = found.place_most(found.iou)
        first = found.reaches(found.iou, best).mul_(found.of_objects(count - order))
        if not self.low_quality:
            return best, found.place_most(first), torch.zeros_like(best)
        most = found.object_most(found.iou)
        most = torch.where((most >= self.least) & (most > 0), most, -1.0)
        return best, found.place_most(first), found.claims(found.iou, most, order + 1)


def _joined(some: tuple[Tensor, Tensor, Tensor], more: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The matches of earlier and of later objects."""
    (best, first, claim), (better, other, later) = some, more
    return torch.maximum(best, better), torch.where(better > best, other, first), torch.maximum(claim, later)
