"""ATSS: adaptive training sample selection (Zhang et al. 2020, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.boxes import distance_inside, iou
from poise.pairwise import highest_value_wins, nearest_per_level, only_finite
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

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"ATSS(topk={self.topk}): at least one candidate a level is needed")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors, objects = predictions.priors, truth.boxes[:, :, None]
        reachable = priors.within(truth.padded_sizes(self.divisor))
        index, usable = nearest_per_level(priors, truth.boxes, self.topk, reachable)  # (B,G,K), algorithm 1, line 3-6
        candidate = usable & truth.valid[..., None]
        overlap = (self.similarity or iou)(priors.boxes[0].float()[index], objects)  # line 7
        threshold = mean_plus_deviation(overlap, candidate)  # lines 8-10
        centers_inside = distance_inside(priors.centers[0].float()[index], objects) > self.inside
        positive = candidate & (overlap >= threshold[..., None]) & centers_inside  # lines 11-15
        best = highest_value_wins(index, overlap, positive, len(priors.strides))
        return Assignment(best.index, only_finite(predictions, best.found), ~reachable, best.value.clamp(min=0))


def mean_plus_deviation(overlap: Tensor, candidate: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation over each object's candidates, (B,G); NaN, so no positive, below two."""
    number = candidate.sum(2)
    mean = (overlap * candidate).sum(2) / number
    variance = ((overlap - mean[..., None]).square() * candidate).sum(2) / (number - 1)
    return mean + variance.sqrt()
