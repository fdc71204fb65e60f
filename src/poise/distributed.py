"""The little that poise needs to know of other processes; launching is ``torchrun``'s work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor


class _Company:
    """Of this process; a plain attribute, since torch 2.10 cannot compile what reads a ContextVar."""

    alone = False


@contextmanager
def alone() -> Iterator[None]:
    """This process computes something that the others do not: no mean waits for them."""
    before, _Company.alone = _Company.alone, True
    try:
        yield
    finally:
        _Company.alone = before


def active() -> bool:
    """Whether a process group of more than one rank exists (and this process is not ``alone``)."""
    return not _Company.alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a (detached) tensor over all ranks; the value itself in a single process."""
    if not active():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def normalizer(value: Tensor, least: float = 1.0) -> Tensor:
    """What a loss sum is divided by: the mean over ranks of ``value``, then at least ``least`` (in this order)."""
    return mean_over_ranks(value.detach().float()).clamp(min=least)
