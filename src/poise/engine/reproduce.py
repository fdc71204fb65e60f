"""Reproducibility: seeds, states of random generators, deterministic algorithms."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np  # a user's part may draw from its global generator
import torch


class RandomState(TypedDict):
    """The states of the random generators of PyTorch, Python and NumPy."""

    torch: torch.Tensor
    cuda: torch.Tensor | None
    python: list[Any]  # as of ``random.getstate``
    numpy: list[Any]  # as of ``numpy.random.get_state``


def random_state(device: torch.device) -> RandomState:
    """Return the states of all global random generators of this process, as plain data."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(words), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Set the states of all global random generators, as returned by :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002


def seed_all(seed: int, rank: int) -> None:
    """Seed every global random generator; each rank gets a different seed."""
    torch.manual_seed(seed + 1_000_003 * rank)
    random.seed(seed + 1_000_003 * rank)
    np.random.seed((seed + 1_000_003 * rank) % 2**32)  # noqa: NPY002


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Use deterministic algorithms inside the context, where PyTorch has them."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # costs time, finds only bugs
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fill
