"""Libra R-CNN's sampling (Pang et al. 2019, section 3.1): negatives even over overlap, positives even over objects.

Random sampling drowns the informative negatives, those that overlap an object, in background: most negatives overlap
nothing. ``IoUBalanced`` splits the range of overlaps into bins and takes the same number from each.

The published code differs from the article in three ways, and its behavior is the default here:

* The bins reach up to the greatest overlap of *all* places. Where the truth is among the proposals that is 1, so that
  with three bins the last one, [2/3, 1), holds no negative at all and its share is refilled at random.
* Negatives that overlap nothing are outside the bins; they come in only when the others do not suffice. (The code
  overwrites its own setting at the first image; ``floor=-1`` is what it does for that one image.)
* The positives' refill draws again from those already taken, so that fewer than asked are returned.

The article's intent is ``IoUBalanced(floor=-1, top=0.5)`` with ``InstanceBalanced(exact=True)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.sample.protocol import SelectionRequest, select_topk


@dataclass(frozen=True)
class IoUBalanced:
    """The same number of negatives from each bin of overlap, then at random from what is left.

    Negatives below ``floor`` are kept out of the bins: with ``floor`` = 0 those that overlap nothing, with a positive
    one those with less overlap, with a negative one none. They get ``floor_fraction`` of the sample, and what the
    others cannot fill.
    """

    needs_loss: ClassVar[bool] = False
    bins: int = 3
    floor: float = 0.0
    floor_fraction: float = 0.0
    top: float | None = None  # upper end of the bins; None: the greatest overlap of all places of the image

    def __post_init__(self) -> None:
        if self.bins < 1 or not 0 <= self.floor_fraction <= 1 or self.floor >= 1:
            raise ValueError(f"{self}: bins >= 1, floor < 1 and floor_fraction in [0,1] are needed")

    def __call__(self, request: SelectionRequest) -> Tensor:
        overlap, keys = request.assignment.quality, request.keys()
        low = request.candidates & (overlap < self.floor if self.floor > 0 else overlap <= self.floor)
        high = request.candidates & ~low
        wanted = (request.count.double() * (1 - self.floor_fraction)).long()
        chosen = self._from_bins(high, overlap, wanted, request)
        for pool in (low, request.candidates):
            chosen = chosen | _refill(pool & ~chosen, chosen, request.count, keys, request.max_count)
        return chosen

    def _from_bins(self, high: Tensor, overlap: Tensor, wanted: Tensor, request: SelectionRequest) -> Tensor:
        """Evenly from the bins, then at random from all of ``high``, up to ``wanted``."""
        start, width = max(self.floor, 0.0), self._width(overlap)
        edges = start + torch.arange(self.bins + 1, device=overlap.device) * width[:, None]  # (B,bins+1)
        level = overlap[:, None]
        member = high[:, None] & (level >= edges[:, :-1, None]) & (level < edges[:, 1:, None])
        share = (wanted // self.bins)[:, None].expand(-1, self.bins)
        chosen = select_topk(member, request.keys()[:, None].expand_as(member), share, request.max_count).any(1)
        # A fresh key: those left over in a drained bin hold low keys and would never be drawn.
        return chosen | _refill(high & ~chosen, chosen, wanted, request.keys(), request.max_count)

    def _width(self, overlap: Tensor) -> Tensor:
        """Width of a bin, (B,)."""
        top = overlap.amax(1) if self.top is None else torch.full_like(overlap[:, 0], self.top)
        return (top - max(self.floor, 0.0)) / self.bins


@dataclass(frozen=True)
class InstanceBalanced:
    """The same number of positives for each object (one more than an even share), then at random up to the count.

    ``exact`` refills from those not taken yet; the published code refills from all, and so returns fewer.
    """

    needs_loss: ClassVar[bool] = False
    exact: bool = False

    def __call__(self, request: SelectionRequest) -> Tensor:
        rank, objects = _rank_in_object(request.assignment.index, request.candidates, request.keys())
        share = (request.count / objects.clamp(min=1)).round() + 1
        even = request.candidates & (rank < share[:, None])
        chosen = select_topk(even, request.keys(), request.count, request.max_count)
        pool = request.candidates & ~chosen if self.exact else request.candidates
        chosen = chosen | _refill(pool, chosen, request.count, request.keys(), request.max_count)
        few = request.candidates.sum(1) <= request.count
        return torch.where(few[:, None], request.candidates, chosen)


def _refill(pool: Tensor, chosen: Tensor, count: Tensor, keys: Tensor, max_count: int) -> Tensor:
    """As many of ``pool`` at random as ``chosen`` lacks of ``count``."""
    return select_topk(pool, keys, (count - chosen.sum(1)).clamp(min=0), max_count)


def _rank_in_object(index: Tensor, candidates: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Each candidate's place in the random order of its object's candidates (B,N); how many objects have any (B,)."""
    places = index.shape[1]
    group = torch.where(candidates, index, torch.iinfo(torch.int32).max)
    order = (group + keys).argsort(1)
    sorted_group, ladder = group.gather(1, order), torch.arange(places, device=index.device).expand_as(index)
    starts = torch.ones_like(candidates)
    starts[:, 1:] = sorted_group[:, 1:] != sorted_group[:, :-1]
    begin = torch.where(starts, ladder, 0).cummax(1).values
    rank = torch.empty_like(order).scatter(1, order, ladder - begin)
    return rank, (starts & candidates.gather(1, order)).sum(1)
