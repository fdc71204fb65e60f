"""The sampler of two-stage detectors, a selection rule for positives and one for negatives, and their interfaces.

A sampler ``(assignment, generator, loss) -> Sample`` selects a fixed number of priors for the losses, with a mask where
there are fewer. It consists of *selection rules*, which select a number of candidates. Both are frozen dataclasses.
They work on the whole batch without loops over images or objects and without host-device synchronization, and draw
random numbers only from the generator that they are given: the same generator state gives the same sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
