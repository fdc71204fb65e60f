"""Draws from PyTorch's own generator on the CPU, which torchvision's transforms use too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def happens(probability: float) -> bool:
    """True with this probability."""
    return bool(torch.rand(()) < probability)


def between(least: float, greatest: float) -> float:
    """Uniform in [least, greatest)."""
    return least + (greatest - least) * float(torch.rand((), dtype=torch.float64))


def whole_number(least: int, greatest: int) -> int:
    """Uniform among least, …, greatest, both included."""
    return int(torch.randint(least, greatest + 1, ()))


def seed_of(*parts: int) -> int:
    """A seed in [0, 2^63) that depends on every part and is the same on each platform."""
    text = ",".join(str(int(part)) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Inside, the CPU generator's draws are a function of ``parts`` alone; afterward it is as if nothing was drawn.

    One thread computes, as in a worker, since the order of a sum may depend on their number. Accelerators'
    generators are neither read nor seeded.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed_of(*parts))
            yield
    finally:
        torch.set_num_threads(threads)
