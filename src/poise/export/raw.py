"""Record the outputs of a head's layers before decoding, and decode recorded outputs without the layers.

Every dense head concatenates its levels with ``poise.nn.layers.flatten_levels`` and computes boxes and scores
from the results without further learned layers. The results are recorded, or replaced by recorded ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from poise.nn.layers import flatten_levels
from poise.structures import Predictions

Flatten = Callable[[Sequence[Tensor], int], Tensor]


def recorded(head: Any, maps: Sequence[Tensor]) -> tuple[Predictions, list[Tensor]]:
    """Run the head; return its predictions and the concatenated outputs (B,N,·) of its layers."""
    outputs: list[Tensor] = []

    def record(levels: Sequence[Tensor], width: int) -> Tensor:
        outputs.append(flatten_levels(levels, width))
        return outputs[-1]

    with _flatten_replaced(head, record):
        predictions = head(maps)
    return predictions, outputs


@torch.no_grad()
def decoded(head: Any, outputs: Sequence[Tensor], channels: int, shapes: Sequence[tuple[int, int]]) -> Predictions:
    """Decode outputs (B,N,·) of the head's layers; ``shapes`` are the heights and widths of the levels.

    The head runs on maps with batch size 0, so its layers cost nothing.
    """
    remaining = iter(outputs)
    with _flatten_replaced(head, lambda levels, width: next(remaining)):
        return head([torch.zeros(0, channels, height, width) for height, width in shapes])


@contextmanager
def _flatten_replaced(head: Any, replacement: Flatten) -> Iterator[None]:
    """Replace ``flatten_levels`` in the modules of the head's classes inside the context."""
    modules = [sys.modules[kind.__module__] for kind in type(head).__mro__]
    modules = [module for module in modules if getattr(module, "flatten_levels", None) is flatten_levels]
    if not modules:
        raise ValueError(f"{type(head).__name__} does not concatenate its levels with poise.nn.layers.flatten_levels")
    try:
        for module in modules:
            module.flatten_levels = replacement  # type: ignore[attr-defined]
        yield
    finally:
        for module in modules:
            module.flatten_levels = flatten_levels  # type: ignore[attr-defined]
