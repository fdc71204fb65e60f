"""Maximum-IoU assignment: anchors, proposals (Faster R-CNN, RetinaNet).

A place is positive for the object that it overlaps most when their IoU reaches ``positive``, negative below
``negative`` and ignored between. With ``low_quality`` every object also claims the places that overlap it most of
all, so that no object goes without, as long as that overlap reaches ``least``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.listing import finite_of
from poise.assign.overlaps import overlaps_with
from poise.assign.planes import equal
from poise.assign.protocol import object_chunks
from poise.boxes import pairwise_iof
from poise.structures import Assignment, GroundTruth, Predictions, Priors

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
        overlap, index, claimed = self._match(boxes.float().nan_to_num(0.0, 0.0, 0.0), truth, reachable)
        positive = (overlap >= self.positive) & (overlap > 0)
        if self.low_quality:
            positive = positive | (claimed >= 0)
            index = torch.where(claimed >= 0, claimed, index)
        ignored = ~positive & (overlap >= self.negative)
        if self.ignore_iof > 0:
            covered = torch.where(truth.crowd[:, None], pairwise_iof(boxes.float(), truth.boxes), 0).amax(2)
            ignored = ignored | (~positive & (covered > self.ignore_iof))
        return Assignment(index, positive & reachable, ignored | ~reachable, overlap)

    def _match(self, anchors: Tensor, truth: GroundTruth, reachable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Best overlap (B,N) in [0,1] and its object, and the object that claims the place (-1: none)."""
        best = truth.boxes.new_zeros(reachable.shape)
        index, claimed = torch.zeros_like(best), torch.zeros_like(best)
        objects = truth.labels.shape[1]
        order = torch.arange(objects, device=best.device).expand_as(truth.labels).float()
        overlaps = overlaps_with(anchors, reachable)
        for part in object_chunks(len(best) * TEMPORARIES, best.shape[1], truth.labels.shape[1]):
            found = overlaps(truth.boxes[:, part], truth.valid[:, part])
            value = found.place_most(found.iou)
            chosen = equal(found.iou, found.of_places(value)).mul_(found.of_objects(objects - order[:, part]))
            index = torch.where(value > best, objects - found.place_most(chosen), index)
            best = torch.maximum(value, best)
            if self.low_quality:
                most = found.object_most(found.iou)
                most = torch.where((most >= self.least) & (most > 0), most, -1.0)
                claimed = torch.maximum(claimed, found.claims(found.iou, most, order[:, part] + 1))
        return best, index.long(), claimed.long() - 1
