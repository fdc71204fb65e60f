"""The smallest values of a row with a fixed order of ties, which ``torch.topk`` leaves open."""

from __future__ import annotations

import torch
from torch import Tensor


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
