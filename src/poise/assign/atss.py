"""ATSS: adaptive training sample selection (Zhang et al. 2020, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.boxes import distance_inside, iou, with_least_sides
from poise.pairwise import BestObject, highest_value_wins, nearest_per_level, only_finite
from poise.similarities import Similarity
from poise.structures import Assignment, GroundTruth, Predictions


@dataclass(frozen=True)
class ATSS:
    """Assignment by the statistics of each object's nearest anchors.

    Candidates of an object are the ``topk`` anchors of each level that are nearest to its center; its threshold is
    the mean plus the standard deviation of their IoU. Candidates at or above it with the center inside the object are
    positive. An anchor that several objects claim is assigned to the one with the highest IoU. Anchors beyond an
    image's padding are ignored.

    Of anchors that are equally near to a center (in squared distance, float32), the ones with the lowest index are
    candidates: the upper row first, in a row from left to right. The original takes ``torch.topk``, which leaves the
    choice among equal distances to the device. Its candidates may therefore be others where an object's center lies on
    a symmetry axis of the grid, and are the same where no distances are equal.
    """

    topk: int = 9  # candidates of a level
    inside: float = 0.01  # px: least distance of a positive's center from the sides of the object
    divisor: int = 32  # images are padded to a multiple of it
    similarity: Similarity | None = None  # in place of the IoU (``poise.similarities``)
    cover: bool = False  # give each object without a positive its best free candidate (``cover_objects``)
    floor: float = 0.0  # px: in the test of "inside", shorter sides grow to it (STAL of YOLO26: 16)

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"ATSS(topk={self.topk}): at least one candidate a level is needed")
        if self.floor < 0:
            raise ValueError(f"ATSS(floor={self.floor}): the floor is not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors, objects = predictions.priors, truth.boxes[:, :, None]
        reachable = priors.within(truth.padded_sizes(self.divisor))
        index, usable = nearest_per_level(priors, truth.boxes, self.topk, reachable)  # (B,G,K), algorithm 1, line 3-6
        candidate = usable & truth.valid[..., None]
        overlap = (self.similarity or iou)(priors.boxes[0].float()[index], objects)  # line 7
        threshold = mean_plus_deviation(overlap, candidate)  # lines 8-10
        least = with_least_sides(objects, self.floor)
        centers_inside = distance_inside(priors.centers[0].float()[index], least) > self.inside
        positive = candidate & (overlap >= threshold[..., None]) & centers_inside  # lines 11-15
        best = highest_value_wins(index, overlap, positive, len(priors.strides))
        if self.cover:
            best = cover_objects(best, index, overlap, candidate)
        return Assignment(best.index, only_finite(predictions, best.found), ~reachable, best.value.clamp(min=0))


def mean_plus_deviation(overlap: Tensor, candidate: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation over each object's candidates, (B,G); NaN, so no positive, below two."""
    number = candidate.sum(2)
    mean = (overlap * candidate).sum(2) / number
    variance = ((overlap - mean[..., None]).square() * candidate).sum(2) / (number - 1)
    return mean + variance.sqrt()


def cover_objects(best: BestObject, index: Tensor, overlap: Tensor, candidate: Tensor) -> BestObject:
    """Give objects without a positive one each: their candidate with the highest overlap that no object has.

    Of equal overlaps, as of anchors that contain the object, the first candidate is taken, which is the nearest. Where
    several such objects want one prior, the highest overlap wins and the others stay without.

    Args:
        best: the object of each of the N priors so far.
        index: (B,G,K) int64 into N, the candidates of each object, those of a level from the nearest on.
        overlap: (B,G,K) of the candidates, above 0 where a candidate may be taken.
        candidate: (B,G,K) bool.
    """
    objects = index.shape[1]
    owner = torch.where(best.found, best.index, objects)  # (B,N)
    covered = owner.new_zeros(len(owner), objects + 1, dtype=torch.bool).scatter(1, owner, True)[:, :objects, None]
    taken = best.found.gather(1, index.flatten(1)).view_as(index)
    free = candidate & ~covered & ~taken & (overlap > 0)
    value = torch.where(free, overlap, -torch.inf).amax(2, keepdim=True)
    number = torch.arange(index.shape[2], device=index.device)
    first = torch.where(free & (overlap == value), number, index.shape[2] - 1).amin(2, keepdim=True)
    added = highest_value_wins(index.gather(2, first), value, value > -torch.inf, best.value.shape[1])
    return BestObject(torch.maximum(best.value, added.value), torch.where(added.found, added.index, best.index))
