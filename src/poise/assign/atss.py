"""ATSS: adaptive training sample selection (Zhang et al. 2020, algorithm 1).

Every object takes the ``topk`` places of each level that are nearest to its center as candidates; its threshold is
the mean plus the standard deviation of their IoU. Candidates that reach it, with the center inside the object, are
positive; a place wanted by several objects goes to the one that it overlaps most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from poise.boxes import iou
from poise.pairwise.listing import finite_of
from poise.pairwise.nearest import nearest
from poise.pairwise.planes import center_planes
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class ATSS:
    """Assignment by the statistics of each object's nearest anchors; places beyond an image's padding are ignored."""

    reads: ClassVar[str] = "priors"
    topk: int = 9
    inside: float = 0.01  # px: how far inside the object a positive's center must be
    divisor: int = 32

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"ATSS(topk={self.topk}): at least one candidate a level is needed")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        reachable = priors.within(truth.padded_sizes(self.divisor))
        places, near = self._candidates(priors, truth, reachable)
        anchors = priors.boxes[0].float()[places]  # (B,G,K,4)
        overlap = iou(anchors, truth.boxes[:, :, None])
        threshold = _mean_plus_deviation(overlap, near)
        centers = (anchors[..., :2] + anchors[..., 2:]) / 2
        depth = torch.minimum(centers - truth.boxes[:, :, None, :2], truth.boxes[:, :, None, 2:] - centers).amin(-1)
        chosen = near & (overlap >= threshold[..., None]) & (depth > self.inside)
        found = _resolve(places, overlap, chosen, reachable)
        return replace(found, positive=finite_of(predictions, found.positive))

    def _candidates(self, priors: Priors, truth: GroundTruth, reachable: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B,G,K) near each object, and which of them count (the object is valid, the place reachable)."""
        target = ((truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2)[..., None].unbind(2)
        beyond = torch.zeros_like(reachable, dtype=torch.float32).masked_fill_(~reachable, torch.inf)
        centers = [plane + beyond[:, None] for plane in center_planes(priors)]
        places, start = [], 0
        for size in priors.level_sizes:
            level = [plane[..., start : start + size] for plane in centers]
            places.append(nearest(target, level, min(self.topk, size)) + start)
            start += size
        index = torch.cat(places, 2)
        near = reachable[:, None].expand(-1, index.shape[1], -1).gather(2, index) & truth.valid[..., None]
        return index, near


def _mean_plus_deviation(overlap: Tensor, counted: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation over the counted candidates (B,G); NaN, so no positive, below two."""
    number = counted.sum(2)
    mean = (overlap * counted).sum(2) / number
    variance = ((overlap - mean[..., None]).square() * counted).sum(2) / (number - 1)
    return mean + variance.sqrt()


def _resolve(places: Tensor, overlap: Tensor, chosen: Tensor, reachable: Tensor) -> Assignment:
    """From each object's chosen places to each place's object: the greatest overlap, then the lowest index."""
    batch, objects, _ = places.shape
    flat = places.flatten(1)
    value = torch.where(chosen, overlap, -1.0).flatten(1)
    best = overlap.new_full(reachable.shape, -1.0).scatter_reduce(1, flat, value, "amax")
    owner = torch.arange(objects, device=places.device)[:, None].expand_as(places[0]).reshape(1, -1).expand(batch, -1)
    owner = torch.where((value >= 0) & (value == best.gather(1, flat)), owner, objects)
    index = torch.full_like(reachable, objects, dtype=torch.int64).scatter_reduce(1, flat, owner, "amin")
    positive = index < objects
    return Assignment(torch.where(positive, index, 0), positive, ~reachable, best.clamp(min=0))
