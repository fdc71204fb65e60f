"""How many objects are computed with at a time, and in which precision sums are accumulated."""

from __future__ import annotations

import torch
from torch import Tensor

STREAM = 1 << 25  # elements of one (B,N,g) plane that a streamed assigner holds at a time
CACHE = 1 << 20  # the same on a CPU, where planes that stay in its cache are read several times as fast


def wide(device: torch.device) -> torch.dtype:
    """float64, in which the order of a sum does not show in float32; where a device has none (Apple's), float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def object_chunks(batch: int, places: int, objects: int, device: torch.device | None = None) -> list[slice]:
    """Slices of the object axis that keep one (B,N,g) plane within ``STREAM`` elements, on a CPU within its cache."""
    cached = device is not None and device.type == "cpu" and not torch.compiler.is_compiling()
    size = max(1, min(STREAM, CACHE if cached else STREAM) // max(1, batch * places))
    return [slice(start, min(start + size, objects)) for start in range(0, objects, size)]


def lowest_index(chosen: Tensor, dim: int = -1) -> Tensor:
    """Index of the first True along ``dim``; the length of ``dim`` where there is none."""
    length = chosen.shape[dim]
    shape = [1] * chosen.ndim
    shape[dim] = length
    positions = torch.arange(length, dtype=torch.int32, device=chosen.device).reshape(shape)
    return torch.where(chosen, positions, length).amin(dim).long()
