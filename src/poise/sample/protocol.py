"""Interfaces of samplers and selection rules, and the steps that they share.

A sampler ``(assignment, generator, loss) -> Sample`` selects a fixed number of priors for the losses, with a mask where
there are fewer. It consists of *selection rules*, which select a number of candidates. Both are frozen dataclasses.
They work on the whole batch without loops over images or objects and without host-device synchronization, and draw
random numbers only from the generator that they are given: the same generator state gives the same sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

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


def restrict_to_sample(assignment: Assignment, sample: Sample) -> Assignment:
    """Return the assignment of the sampled priors (B,S); masked ones are ignored."""
    taken = assignment.take(sample.index)
    return replace(taken, positive=taken.positive & sample.mask, ignored=taken.ignored | ~sample.mask)
