"""Adaptive max pooling from standard operators, which replaces that of ``torch.nn.functional`` in exported graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pool_by_windows(x: Tensor, size: Sequence[object]) -> Tensor:
    """``torch.nn.functional.adaptive_max_pool2d`` by reading every window, along rows, then along columns.

    Sizes may be those of a traced program, which differ from call to call: runtimes pool to constant sizes only. The
    windows have the width of the next power of two of the ratio of the traced sizes, and one more: the ratio of two
    pyramid levels never exceeds that of their strides.

    Args:
        x: (B,C,H,W).
        size: smaller height and width.
    """
    for axis, length in zip((2, 3), size, strict=True):
        x = _pooled(x, axis, length)
    return x


def _pooled(x: Tensor, axis: int, length: Any) -> Tensor:
    full = x.shape[axis]
    ratio = 2 ** math.ceil(math.log2(_example(full) / _example(length)))
    position = torch.arange(length, device=x.device)
    first, last = position * full // length, ((position + 1) * full + length - 1) // length - 1
    windows = [x.index_select(axis, torch.minimum(first + step, last)) for step in range(ratio + 1)]
    return torch.stack(windows).amax(0)


def _example(length: Any) -> int:
    """Return a length as it is, or its value in the example that a program is traced with."""
    return length if isinstance(length, int) else length.node.hint
