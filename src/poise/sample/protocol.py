"""What a sampler is: a value that says which assigned places are trained on.

A sampler ``(assignment, generator, loss) -> Sample`` keeps a fixed number of places, with a mask where there are fewer.
It is built from *choosers*, which pick a wanted number out of candidates. Both are frozen dataclasses, work on whole
batches without loops over images or objects and without host-device synchronization, and draw only from the generator
that they are given: the same generator state gives the same sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class SelectionRequest:
    """What a chooser is asked for."""

    candidates: Tensor  # (B,N) bool
    count: Tensor  # (B,) int64, how many are wanted
    max_count: int  # no image wants more than this
    assignment: Assignment
    generator: torch.Generator | None = None  # None: torch's own
    loss: Tensor | None = None  # (B,N) what each place would cost, for choosers with ``needs_loss``

    def keys(self) -> Tensor:
        """Fresh uniform random numbers (B,N) float64 in [0,1): fine enough that ties do not happen."""
        shape, device = self.candidates.shape, self.candidates.device
        return torch.rand(shape, generator=self.generator, device=device, dtype=torch.float64)


class SelectionRule(Protocol):
    """``request -> (B,N) bool``, a subset of the candidates with at most ``count`` members."""

    @property
    def needs_loss(self) -> bool: ...

    def __call__(self, request: SelectionRequest) -> Tensor: ...


class Sampler(Protocol):
    """``(assignment, generator, loss) -> Sample``; ignored places are never chosen."""

    @property
    def needs_loss(self) -> bool: ...

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample: ...


def select_topk(candidates: Tensor, keys: Tensor, count: Tensor, max_count: int) -> Tensor:
    """The ``count`` candidates with the greatest keys.

    Args:
        candidates: (...,N) bool.
        keys: (...,N), not negative.
        count: (...), at most ``max_count``.

    Returns:
        (...,N) bool; all candidates where there are no more than ``count``.
    """
    width = min(max_count, candidates.shape[-1])
    index = torch.where(candidates, keys, -1.0).topk(width, -1).indices
    wanted = torch.arange(width, device=index.device) < count[..., None]
    return torch.zeros_like(candidates).scatter(-1, index, wanted) & candidates


def to_sample(positive: Tensor, negative: Tensor, size: int) -> Sample:
    """A ``Sample`` of at most ``size`` places from disjoint (B,N) masks: positives, then negatives, each ascending."""
    places = positive.shape[1]
    order = positive.long() * 2 + negative.long()
    keys = order * places + torch.arange(places - 1, -1, -1, device=order.device)
    index = keys.topk(min(size, places), 1).indices
    return Sample(index, order.gather(1, index) > 0)


def restrict_to_sample(assignment: Assignment, sample: Sample) -> Assignment:
    """The assignment of the sampled places (B,S); what was not chosen is ignored."""
    taken = assignment.take(sample.index)
    return replace(taken, positive=taken.positive & sample.mask, ignored=taken.ignored | ~sample.mask)
