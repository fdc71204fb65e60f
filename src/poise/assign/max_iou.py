"""Maximum-IoU assignment: anchors, proposals (Faster R-CNN, RetinaNet).

A place is positive for the object that it overlaps most when their IoU reaches ``positive``, negative below
``negative`` and ignored between. With ``low_quality`` every object also claims the places that overlap it most of
all, so that no object goes without, as long as that overlap reaches ``least``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.planes import Planes, first_equal, last_equal
from poise.assign.protocol import object_chunks
from poise.boxes import pairwise_iof
from poise.structures import Assignment, GroundTruth, Predictions


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
        priors = predictions.priors
        shape = (len(truth.boxes), priors.boxes.shape[1])
        reachable = priors.within(truth.padded_sizes(self.divisor)) if self.divisor else truth.valid.new_ones(shape)
        return self.on(priors.boxes, reachable.expand(shape), predictions.finite(), truth)

    def on(self, boxes: Tensor, reachable: Tensor, finite: Tensor, truth: GroundTruth) -> Assignment:
        """The same by the overlap with any boxes.

        Args:
            boxes: (B|1,N,4) xyxy in pixels.
            reachable: (B,N) bool; the others are ignored.
            finite: (B,N) bool; the others do not become positive.
        """
        overlap, index, claimed = self._match(Planes.of(boxes), truth, reachable)
        positive = (overlap >= self.positive) & (overlap > 0)
        if self.low_quality:
            positive = positive | (claimed >= 0)
            index = torch.where(claimed >= 0, claimed, index)
        ignored = ~positive & (overlap >= self.negative)
        if self.ignore_iof > 0:
            covered = torch.where(truth.crowd[:, None], pairwise_iof(boxes.float(), truth.boxes), 0).amax(2)
            ignored = ignored | (~positive & (covered > self.ignore_iof))
        return Assignment(index, positive & reachable & finite, ignored | ~reachable, overlap)

    def _match(self, anchors: Planes, truth: GroundTruth, reachable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Best overlap (B,N) in [0,1] and its object, and the object that claims the place (-1: none)."""
        best = truth.boxes.new_zeros(reachable.shape)
        index = torch.zeros_like(best, dtype=torch.int64)
        claimed, usable = torch.full_like(index, -1), reachable[:, None].float()
        for part in object_chunks(len(best), best.shape[1], truth.boxes.shape[1], best.device):
            overlap = anchors.iou(truth.boxes[:, part]).mul_(truth.valid[:, part, None]).mul_(usable)
            value = overlap.amax(1)
            better = value > best
            index = torch.where(better, first_equal(overlap, value) + part.start, index)
            best = torch.where(better, value, best)
            if self.low_quality:
                most = overlap.amax(2, keepdim=True)
                most = torch.where((most >= self.least) & (most > 0), most, torch.inf)
                last = last_equal(overlap, most)
                claimed = torch.where(last >= 0, last + part.start, claimed)
        return best, index, claimed
