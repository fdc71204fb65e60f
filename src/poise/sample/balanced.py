"""IoU-balanced sampling of Libra R-CNN (Pang et al. 2019, section 3.1), and instance-balanced sampling of positives.

With random sampling, most of the sampled negatives are background without any overlap. ``IoUBalanced`` divides the
range of IoU into bins and samples the same number of negatives from each, so that more of them are hard. For positives
the article samples the same number for each object, ``InstanceBalanced``.

The published code differs from the article in three ways. Its behavior is the default here:

* The bins reach up to the largest IoU of *all* priors. Where the ground truth is among the proposals this is 1: with
  three bins the last one, [2/3, 1), contains no negative, and its part of the sample is drawn at random.
* Negatives with IoU 0 are outside the bins and are sampled only where the others do not suffice. (The code overwrites
  its own setting at the first image; ``floor=-1`` is its behavior for that image.)
* When fewer than the requested positives are selected, the code draws the rest from all positives, including those that
  are already selected, and so returns fewer than requested.

The article's sampling is ``IoUBalanced(floor=-1, top=0.5)`` with ``InstanceBalanced(exact=True)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from poise.sample.sampler import PositiveNegativeSampler, SelectionRequest, select_topk


@dataclass(frozen=True)
class IoUBalanced:
    """Select the same number of negatives from each IoU bin, then at random from the rest.

    Negatives with an IoU up to ``floor`` are outside the bins: for ``floor`` = 0 those with IoU 0, for a positive floor
    those below it, for a negative one none. They get ``floor_fraction`` of the sample, and what the others cannot fill.
    """

    needs_loss: ClassVar[bool] = False
    bins: int = 3
    floor: float = 0.0
    floor_fraction: float = 0.0
    top: float | None = None  # upper end of the bins; None: the largest IoU of all priors of the image

    def __post_init__(self) -> None:
        if self.bins < 1 or not 0 <= self.floor_fraction <= 1 or self.floor >= 1:
            raise ValueError(f"{self}: bins must be >= 1, floor < 1, and floor_fraction in [0,1]")

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected negatives (B,N) bool."""
        iou, keys = request.assignment.quality, request.keys()
        low = request.candidates & (iou < self.floor if self.floor > 0 else iou <= self.floor)
        high = request.candidates & ~low
        high_count = (request.count.double() * (1 - self.floor_fraction)).long()
        selected = self._from_bins(high, iou, high_count, request)
        for pool in (low, request.candidates):
            selected = request.fill(selected, pool & ~selected, keys)
        return selected

    def _from_bins(self, high: Tensor, iou: Tensor, count: Tensor, request: SelectionRequest) -> Tensor:
        """Select evenly from the bins, then at random from all of ``high``, up to ``count``."""
        start = max(self.floor, 0.0)
        top = iou.amax(1) if self.top is None else torch.full_like(iou[:, 0], self.top)
        width = (top - start) / self.bins
        edges = start + torch.arange(self.bins + 1, device=iou.device) * width[:, None]  # (B,bins+1)
        level = iou[:, None]
        member = high[:, None] & (level >= edges[:, :-1, None]) & (level < edges[:, 1:, None])
        per_bin = (count // self.bins)[:, None].expand(-1, self.bins)
        selected = select_topk(member, request.keys()[:, None].expand_as(member), per_bin, request.max_count).any(1)
        # New keys: with the same ones, the negatives left in a bin would have low keys and would never be selected.
        return replace(request, count=count).fill(selected, high & ~selected)


@dataclass(frozen=True)
class InstanceBalanced:
    """Select the same number of positives for each object (an even part plus one), then at random up to the count.

    With ``exact`` the rest is drawn from the positives that are not selected yet; the published code draws from all.
    """

    needs_loss: ClassVar[bool] = False
    exact: bool = False

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected positives (B,N) bool."""
        rank, objects = _rank_in_object(request.assignment.index, request.candidates, request.keys())
        per_object = (request.count / objects.clamp(min=1)).round() + 1
        even = request.candidates & (rank < per_object[:, None])
        selected = request.select(even)
        pool = request.candidates & ~selected if self.exact else request.candidates
        selected = request.fill(selected, pool)
        few = request.candidates.sum(1) <= request.count
        return torch.where(few[:, None], request.candidates, selected)


def libra_sampler(size: int = 512, positive_fraction: float = 0.25, iou_bins: int = 3) -> PositiveNegativeSampler:
    """Return the sampler of Libra R-CNN's published code, which differs from the article."""
    negatives = IoUBalanced(iou_bins)
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(), negatives=negatives)


def libra_article_sampler(
    size: int = 512, positive_fraction: float = 0.25, negative_threshold: float = 0.5, iou_bins: int = 3
) -> PositiveNegativeSampler:
    """Return the sampler of Libra R-CNN's article: bins over the IoU of all negatives, exact numbers."""
    negatives = IoUBalanced(iou_bins, floor=-1.0, top=negative_threshold)
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(exact=True), negatives=negatives)


def _rank_in_object(index: Tensor, candidates: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return each candidate's rank in a random order of its object's candidates (B,N), and the number of objects (B,).

    Args:
        index: object of each prior (B,N).
        candidates: (B,N) bool.
        keys: random numbers (B,N) in [0,1).
    """
    priors = index.shape[1]
    group = torch.where(candidates, index, torch.iinfo(torch.int32).max)
    order = (group + keys).argsort(1)
    sorted_group, position = group.gather(1, order), torch.arange(priors, device=index.device).expand_as(index)
    starts = torch.ones_like(candidates)
    starts[:, 1:] = sorted_group[:, 1:] != sorted_group[:, :-1]
    begin = torch.where(starts, position, 0).cummax(1).values
    rank = torch.empty_like(order).scatter(1, order, position - begin)
    return rank, (starts & candidates.gather(1, order)).sum(1)
