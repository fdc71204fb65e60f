"""Places of each image that count, side by side.

An accelerator would have to wait until it is known how many do, so that there all places are computed with; a CPU waits
for nobody and gathers them. Who computes with places is written once for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from poise.structures import Assignment, Predictions

T = TypeVar("T", Predictions, Assignment)


def allows_dynamic_shapes(device: torch.device) -> bool:
    """Whether a number of places may be looked at: where nobody waits for it, and not in a compiled graph."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


def positions(held: Tensor) -> Tensor:
    """Where a tensor on a CPU is True, (P,) int64 into all its elements.

    By NumPy, whose loop does not branch: four times as fast as torch's.
    """
    return torch.from_numpy(np.flatnonzero(held.numpy()))


def pairs_at(position: Tensor, objects: int, places: int) -> tuple[Tensor, Tensor]:
    """Object, into B * g, and place, into B * N, of positions in all pairs (B,g,N) of ``objects`` and ``places``."""
    owner = position // places
    return owner, position - (owner - owner // objects) * places


@dataclass(frozen=True)
class Places:
    """V of each image's N places, in their order; images with fewer than V that count are filled up."""

    held: Tensor  # (B,V) bool, those that count
    index: Tensor | None  # (B,V) int64 into N; None: all places
    total: int  # N

    @staticmethod
    def of(held: Tensor) -> Places:
        """Those of all places (B,N) that are ``held``."""
        if not allows_dynamic_shapes(held.device):
            return Places(held, None, held.shape[1])
        position, size = positions(held), held.shape[1]
        image, place = position // size, position % size
        counts = torch.bincount(image, minlength=len(held))
        rank = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        size = max(1, int(counts.max()))
        index = place.new_zeros(len(held), size).index_put_((image, rank), place)
        return Places(torch.arange(size) < counts[:, None], index, held.shape[1])

    def take(self, said: T) -> T:
        """What is predicted of them, or assigned to them."""
        return said if self.index is None else said.take(self.index)

    def of_all(self, values: Tensor) -> Tensor:
        """Values of all places (N,) as values of these, (B|1,V)."""
        return values[None] if self.index is None else values[self.index]

    def spread(self, values: Tensor) -> Tensor:
        """Values (B,V) as values of all places (B,N), 0 where a place does not count."""
        if self.index is None:
            return torch.where(self.held, values, torch.zeros_like(values))
        first = torch.arange(len(values))[:, None] * self.total
        whole = values.new_zeros(len(values), self.total)
        whole.view(-1)[(self.index + first)[self.held]] = values[self.held]
        return whole


def finite_of(predictions: Predictions, held: Tensor) -> Tensor:
    """Places (B,N) that are ``held`` and of which everything predicted is a finite number."""
    if not allows_dynamic_shapes(held.device):
        return held & predictions.finite()
    found, among = torch.zeros_like(held), positions(held)
    found.view(-1)[among] = predictions.finite(among)
    return found
