"""The processes of one run: several under ``torchrun``, else one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process within the group. The methods communicate over the CPU and do not synchronize with a GPU."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    control: Any = None  # a gloo group

    @property
    def first(self) -> bool:
        """Whether this process has rank 0, which writes files and output."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Return each flag, true if it is true in any process."""
        if self.world_size == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control)
        return [bool(vote) for vote in votes.tolist()]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in each of them; plain data and tensors."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return cast("list[T]", values)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a CPU tensor over the processes."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.control)
        return total / self.world_size

    def all_healthy(self, healthy: Tensor) -> Tensor:
        """Return a scalar bool on the device, true if all processes are healthy, without synchronization."""
        if self.world_size == 1:
            return healthy
        vote = healthy.to(torch.float32)
        dist.all_reduce(vote, dist.ReduceOp.MIN)
        return vote > 0.5

    def barrier(self) -> None:
        """Wait for all processes."""
        self.any(False)


@contextmanager
def process_group(device: str, timeout_minutes: float) -> Iterator[Processes]:
    """Join the process group that ``torchrun`` started, or use one process; an existing group is used as it is.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        timeout_minutes: time after which a process that waits for the others gives up.

    Raises:
        ValueError: the device does not exist here.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")) if world_size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    owned = world_size > 1 and not dist.is_initialized()
    timeout = timedelta(minutes=timeout_minutes)
    if owned:
        _init("nccl" if chosen.type == "cuda" else "gloo", timeout)
    try:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            control = dist.new_group(backend="gloo", timeout=timeout)
            yield Processes(chosen, dist.get_rank(), dist.get_world_size(), control)
        else:
            yield Processes(chosen)
    finally:
        if owned:
            dist.destroy_process_group()


def _init(backend: str, timeout: timedelta) -> None:
    """Initialize the process group. Restarted processes must not read the addresses of those before from the store.

    Restarts are counted per host, so the count is the same for all processes only on a single host.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return dist.init_process_group(backend, timeout=timeout)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"attempt-{attempt}", store), rank=rank, world_size=world_size, timeout=timeout
    )


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device of this name; each process of a host gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device '{name}': {error}") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device '{name}': PyTorch finds no CUDA GPU here; use --device cpu")
        index = device.index if device.index is not None else (local_rank or 0)
        if local_rank is not None and device.index is not None:
            raise ValueError(f"device '{name}': with several processes say 'cuda'; each takes its own GPU")
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device 'cuda:{index}': there are {torch.cuda.device_count()} GPUs; start fewer processes"
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps': PyTorch finds no Apple GPU here; use --device cpu")
    return device
