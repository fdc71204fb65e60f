"""The samplers of two-stage detectors: at random (Faster R-CNN) and balanced (Libra R-CNN: Pang et al. 2019).

A sampler ``(assignment, generator, loss) -> Sample`` selects a fixed number of priors for the losses, with a mask where
there are fewer. It consists of two *selection rules*, one for positives and one for negatives, which select a number of
candidates. Both are frozen dataclasses. They work on the whole batch without loops over images or objects and without
host-device synchronization, and draw random numbers only from the generator that they are given: the same generator
state gives the same sample.

Libra R-CNN's published code differs from the article in three ways. Its behavior is the default here:

* The bins reach up to the largest IoU of *all* priors. Where the ground truth is among the proposals this is 1: with
  three bins the last one, [2/3, 1), contains no negative, and its part of the sample is drawn at random.
* Negatives with IoU 0 are outside the bins and are sampled only where the others do not suffice. (The code overwrites
  its own setting at the first image; ``floor=-1`` is its behavior for that image.)
* When fewer than the requested positives are selected, the code draws the rest from all positives, including those that
  are already selected, and so returns fewer than requested.

The article's sampling is ``IoUBalanced(floor=-1, top=0.5)`` with ``InstanceBalanced(exact=True)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class SelectionRequest:
    """Input of a selection rule."""

    candidates: Tensor  # (B,N) bool
    count: Tensor  # (B,) int64, number of candidates to select
    max_count: int  # upper bound of ``count``
    assignment: Assignment
    generator: torch.Generator | None = None  # None: torch's default generator
    loss: Tensor | None = None  # (B,N) loss of each prior, for selection rules with ``needs_loss``

    def keys(self) -> Tensor:
        """Draw uniform random numbers (B,N) float64 in [0,1), fine enough that no two are equal."""
        shape, device = self.candidates.shape, self.candidates.device
        return torch.rand(shape, generator=self.generator, device=device, dtype=torch.float64)

    def select(self, candidates: Tensor, keys: Tensor | None = None) -> Tensor:
        """Select up to ``count`` of ``candidates`` (B,N) by the largest ``keys``; None: at random."""
        return select_topk(candidates, self.keys() if keys is None else keys, self.count, self.max_count)

    def fill(self, selected: Tensor, pool: Tensor, keys: Tensor | None = None) -> Tensor:
        """Add to ``selected`` from ``pool``, both (B,N), what it is short of ``count``; None: at random."""
        short = (self.count - selected.sum(1)).clamp(min=0)
        return selected | select_topk(pool, self.keys() if keys is None else keys, short, self.max_count)


class SelectionRule(Protocol):
    """``request -> (B,N) bool``: a subset of the candidates with at most ``count`` elements."""

    @property
    def needs_loss(self) -> bool:
        """Whether the rule reads ``SelectionRequest.loss``."""
        ...

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected candidates."""
        ...


class Sampler(Protocol):
    """``(assignment, generator, loss) -> Sample``; ignored priors are never selected."""

    @property
    def needs_loss(self) -> bool:
        """Whether the sampler reads ``loss``."""
        ...

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return the sample."""
        ...


def select_topk(candidates: Tensor, keys: Tensor, count: Tensor, max_count: int) -> Tensor:
    """Select the ``count`` candidates with the largest keys.

    Args:
        candidates: (...,N) bool.
        keys: (...,N), not negative.
        count: (...), at most ``max_count``.

    Returns:
        (...,N) bool; all candidates where there are no more than ``count``.
    """
    width = min(max_count, candidates.shape[-1])
    index = torch.where(candidates, keys, -1.0).topk(width, -1).indices
    selected = torch.arange(width, device=index.device) < count[..., None]
    return torch.zeros_like(candidates).scatter(-1, index, selected) & candidates


def to_sample(positive: Tensor, negative: Tensor, size: int) -> Sample:
    """Return a ``Sample`` of at most ``size`` priors: positives, then negatives, each by ascending index.

    ``positive`` and ``negative`` are disjoint (B,N) masks.
    """
    priors = positive.shape[1]
    order = positive.long() * 2 + negative.long()
    keys = order * priors + torch.arange(priors - 1, -1, -1, device=order.device)
    index = keys.topk(min(size, priors), 1).indices
    return Sample(index, order.gather(1, index) > 0)


@dataclass(frozen=True)
class RandomSelection:
    """Select candidates at random, without replacement (Girshick 2015)."""

    needs_loss: ClassVar[bool] = False

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected candidates (B,N) bool."""
        return request.select(request.candidates)


@dataclass(frozen=True)
class IoUBalanced:
    """IoU-balanced sampling (Libra R-CNN, section 3.1): the same number of negatives from each IoU bin, then at random.

    With random sampling, most of the sampled negatives are background without any overlap. Bins over the range of IoU
    make more of them hard.

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
    """Instance-balanced sampling (Libra R-CNN, section 3.1): the same number of positives for each object.

    An even part plus one of each object, then at random up to the count.
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


@dataclass(frozen=True)
class PositiveNegativeSampler:
    """Select up to ``size`` priors per image: at most ``positive_fraction`` of them positive, the rest negative.

    ``negatives_per_positive`` >= 0 also limits the negatives to that many for each selected positive (at least one
    positive is counted). With too few candidates the sample is smaller.
    """

    size: int = 512
    positive_fraction: float = 0.25
    negatives_per_positive: float = -1.0
    positives: SelectionRule = field(default_factory=RandomSelection)
    negatives: SelectionRule = field(default_factory=RandomSelection)

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.positive_fraction <= 1:
            raise ValueError(
                f"PositiveNegativeSampler(size={self.size}, positive_fraction={self.positive_fraction}): "
                "size must be >= 1, positive_fraction in [0,1]"
            )

    @property
    def needs_loss(self) -> bool:
        """Whether one of the selection rules reads the losses."""
        return self.positives.needs_loss or self.negatives.needs_loss

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return the sample of an assignment; ``loss`` (B,N) is needed with ``needs_loss``."""
        max_positives = int(self.size * self.positive_fraction)
        count = torch.full_like(assignment.index[:, 0], max_positives)
        positive = self.positives(
            SelectionRequest(assignment.positive, count, max_positives, assignment, generator, loss)
        )
        num_positives = positive.sum(1)
        count = self.size - num_positives
        if self.negatives_per_positive >= 0:
            count = torch.minimum(count, (self.negatives_per_positive * num_positives.clamp(min=1)).long())
        negative = self.negatives(SelectionRequest(assignment.negative, count, self.size, assignment, generator, loss))
        return to_sample(positive, negative, self.size)


def random_sampler(
    size: int = 512, positive_fraction: float = 0.25, negatives_per_positive: float = -1.0
) -> PositiveNegativeSampler:
    """Return the sampler of Faster R-CNN: both kinds at random."""
    return PositiveNegativeSampler(size, positive_fraction, negatives_per_positive)


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


@dataclass(frozen=True)
class TakeAll:
    """Select all positives and all negatives, for comparisons without random numbers."""

    needs_loss: ClassVar[bool] = False

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return all priors, with a mask of those that are not ignored."""
        index = torch.arange(assignment.index.shape[1], device=assignment.index.device)
        return Sample(index.expand_as(assignment.index), ~assignment.ignored)
