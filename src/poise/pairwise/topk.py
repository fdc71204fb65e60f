"""Top-k with a fixed order of ties, which ``torch.topk`` leaves open, and the nearest priors of each level by it."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.boxes import planar
from poise.pairwise.devices import cached_slices
from poise.structures import Priors


def smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` smallest of (...,N) float32 values, ascending, and their indices; no value may be NaN.

    Ties go to the lowest index: value and index are sorted as one number.
    """
    index = torch.arange(values.shape[-1], device=values.device)
    keys = sort_keys(values).bitwise_left_shift_(32).bitwise_or_(index)
    found = keys.topk(count, -1, largest=False).values
    return values_of_keys(found >> 32), found & 0xFFFFFFFF


def sort_keys(values: Tensor) -> Tensor:
    """Return integers of 32 bits, as int64, in the order of float32 values; no value may be NaN."""
    return _flip((values + 0.0).view(torch.int32)).long()  # -0 becomes 0


def values_of_keys(keys: Tensor) -> Tensor:
    """The inverse of :func:`sort_keys`."""
    return _flip(keys.int()).view(torch.float32)


def _flip(bits: Tensor) -> Tensor:
    """Flip the 31 lower bits of negative numbers, whose magnitude a float stores without a sign; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def nearest_per_level(priors: Priors, boxes: Tensor, topk: int, usable: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``topk`` nearest priors of each level and object; ties go to the lowest index.

    Args:
        boxes: (B,G,4) objects.
        usable: (B,N) bool, priors that may be taken; all.

    Returns:
        Index into the N priors and whether a prior is usable, both (B,G,K) with K the sum over levels of at most
        ``topk``.
    """
    x, y = planar(priors.centers.float()).unbind(-1)
    if usable is not None:
        x = torch.where(usable, x, torch.inf)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    found, start = [], 0
    for size in priors.level_sizes:
        level, chunks = slice(start, start + size), []
        for part in cached_slices(len(boxes), size, boxes.shape[1], boxes.device):
            across = center[:, part, None, 0] - x[:, None, level]
            along = center[:, part, None, 1] - y[:, None, level]
            chunks.append(smallest(along.square_().addcmul_(across, across), min(topk, size))[1] + start)
        found.append(torch.cat(chunks, 1))
        start += size
    index = torch.cat(found, 2)
    if usable is None:
        return index, torch.ones_like(index, dtype=torch.bool)
    return index, usable[:, None].expand(-1, index.shape[1], -1).gather(2, index)
