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

from poise.assign.protocol import highest_index, lowest_index, object_chunks
from poise.boxes import pairwise_iof, pairwise_iou
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
        anchors = priors.boxes.float().expand(len(truth.boxes), -1, -1)
        reachable = (
            priors.within(truth.padded_sizes(self.divisor)) if self.divisor else truth.valid.new_ones(anchors.shape[:2])
        )
        overlap, index, claimed = self._match(anchors, truth, reachable)
        positive = (overlap >= self.positive) & (overlap > 0)
        if self.low_quality:
            positive = positive | (claimed >= 0)
            index = torch.where(claimed >= 0, claimed, index)
        ignored = ~positive & (overlap >= self.negative)
        if self.ignore_iof > 0:
            covered = torch.where(truth.crowd[:, None], pairwise_iof(anchors, truth.boxes), 0).amax(2)
            ignored = ignored | (~positive & (covered > self.ignore_iof))
        return Assignment(index, positive & reachable & predictions.finite(), ignored | ~reachable, overlap)

    def _match(self, anchors: Tensor, truth: GroundTruth, reachable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Best overlap (B,N) in [0,1] and its object, and the object that claims the place (-1: none)."""
        batch, places = anchors.shape[:2]
        best = anchors.new_zeros(batch, places)
        index = torch.zeros(batch, places, dtype=torch.int64, device=anchors.device)
        claimed = torch.full_like(index, -1)
        for part in object_chunks(batch, places, truth.boxes.shape[1]):
            usable = truth.valid[:, None, part] & reachable[..., None]
            overlap = torch.where(usable, pairwise_iou(anchors, truth.boxes[:, part]), -1.0)
            value = overlap.amax(2)
            better = value > best
            index = torch.where(better, lowest_index(overlap == value[..., None]) + part.start, index)
            best = torch.where(better, value, best)
            if self.low_quality:
                most = overlap.amax(1, keepdim=True)
                last = highest_index((overlap == most) & (most >= self.least) & (most > 0))
                claimed = torch.where(last >= 0, last + part.start, claimed)
        return best, index, claimed
