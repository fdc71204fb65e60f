"""Sums and means over the processes of a distributed run. ``torchrun`` launches the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor


class _Scope:
    """State of this process; a plain attribute, because torch 2.10 cannot compile code that reads a ContextVar."""

    single_process = False


@contextmanager
def single_process() -> Iterator[None]:
    """Disable the means over processes meanwhile, for code that only this process runs."""
    before, _Scope.single_process = _Scope.single_process, True
    try:
        yield
    finally:
        _Scope.single_process = before


def active() -> bool:
    """Return whether the process group has several ranks and :func:`single_process` is not in effect."""
    return not _Scope.single_process and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks, detached; the value itself in a single process."""
    return sum_over_ranks(value) / dist.get_world_size() if active() else value


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, detached; the value itself in a single process."""
    if not active():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total
