"""Maximum-IoU assignment of anchors and proposals (Faster R-CNN: Ren et al. 2015, section 3.1.2; RetinaNet)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.boxes import pairwise_iof
from poise.pairwise import TINY, BestObject, Pairs, all_pairs, chunks_of_objects, only_finite, overlapping
from poise.similarities import Similarity, similarity_of
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class MaxIoU:
    """Assignment by overlap with the priors.

    A prior is positive for the object with the highest IoU at or above ``positive``, negative below ``negative`` and
    ignored between; ties go to the lowest index of the object. With ``low_quality``, every object also claims the
    priors with its highest IoU, if that is at least ``least``; ties go to the highest index (the original writes
    objects in order, later ones over earlier). ``ignore_iof`` > 0 ignores priors of which a crowd region covers more
    than that fraction; the published recipes leave it off (-1). Priors outside an image's own padding are ignored.
    ``similarity`` replaces the IoU throughout (NWD, SimD, GCD: ``poise.similarities``).
    """

    positive: float = 0.5
    negative: float = 0.4
    least: float = 0.0
    low_quality: bool = True
    ignore_iof: float = -1.0
    divisor: int = 32  # padding of a single image; 0 keeps every prior
    similarity: Similarity | None = None  # None: the IoU

    def __post_init__(self) -> None:
        if not 0 <= self.negative <= self.positive <= 1:
            raise ValueError(
                f"MaxIoU(positive={self.positive}, negative={self.negative}): 0 <= negative <= positive <= 1"
            )

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        found = self.assign(predictions.priors.boxes, self.reachable(predictions.priors, truth), truth)
        return replace(found, positive=only_finite(predictions, found.positive))

    def reachable(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """Priors within each image's own padding, (B,N) bool."""
        sizes = truth.padded_sizes(self.divisor) if self.divisor else truth.sizes + torch.inf
        return priors.within(sizes).expand(len(truth.boxes), -1)

    def assign(self, boxes: Tensor, reachable: Tensor, truth: GroundTruth) -> Assignment:
        """Assign any boxes.

        Args:
            boxes: (B|1,N,4) xyxy in pixels.
            reachable: (B,N) bool; the others are ignored.
        """
        best = BestObject.none(reachable.shape, boxes.device)
        forced = torch.full_like(best.value, -1)  # (B,N), the last object that claims the prior by its highest IoU
        everywhere = self.similarity is not None  # positive without a common area
        for objects in chunks_of_objects(truth, reachable.shape[1], planes_alive=2, dense=everywhere):
            if everywhere:
                pairs: Pairs = all_pairs(objects.valid, reachable)
                owners = pairs.from_objects(objects.boxes)
                iou = similarity_of(self.similarity, pairs.from_priors(boxes.float()), owners)
            else:
                pairs, iou = overlapping(boxes, objects, reachable)
            best = best.update(pairs, iou, objects)
            if self.low_quality:
                at_highest = (iou == pairs.from_objects(pairs.max_by_object(iou))) & (iou >= max(self.least, TINY))
                index = pairs.from_objects(objects.index.float().expand_as(objects.labels))
                forced = torch.maximum(forced, pairs.max_by_prior(torch.where(at_highest, index, -1.0)))
        overlap = best.value.clamp(min=0)
        positive = (overlap >= max(self.positive, TINY)) | (forced >= 0)
        not_negative = overlap >= self.negative
        if self.ignore_iof > 0:
            covered = torch.where(truth.crowd[:, None], pairwise_iof(boxes.float(), truth.boxes), 0).amax(2)
            not_negative = not_negative | (covered > self.ignore_iof)
        index = torch.where(forced >= 0, forced.long(), best.index)
        return Assignment(index, positive, not_negative & ~positive | ~reachable, overlap)
