"""Outputs of a head's layers before decoding, and decoding them without the layers.

Every dense head concatenates its levels with ``poise.nn.head_layers.flatten_levels`` and computes boxes and scores
from the results without any more learned layers. What passes there is recorded, and can be put back in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from poise.nn.head_layers import flatten_levels
from poise.structures import Predictions

Joining = Callable[[Sequence[Tensor], int], Tensor]


def recorded(head: Any, maps: Sequence[Tensor]) -> tuple[Predictions, list[Tensor]]:
    """What the head says of the pyramid's maps, and the joined outputs (B,N,·) of its layers."""
    outputs: list[Tensor] = []

    def record(levels: Sequence[Tensor], width: int) -> Tensor:
        outputs.append(flatten_levels(levels, width))
        return outputs[-1]

    with _joined_by(head, record):
        predictions = head(maps)
    return predictions, outputs


@torch.no_grad()
def decoded(head: Any, outputs: Sequence[Tensor], channels: int, shapes: Sequence[tuple[int, int]]) -> Predictions:
    """What the head says where its layers give these outputs (B,N,·); ``shapes`` are the levels' heights and widths.

    The head runs on maps of no image at all, so its layers cost nothing.
    """
    waiting = iter(outputs)
    with _joined_by(head, lambda levels, width: next(waiting)):
        return head([torch.zeros(0, channels, height, width) for height, width in shapes])


@contextmanager
def _joined_by(head: Any, joining: Joining) -> Iterator[None]:
    """The head's modules use ``joining`` in the place of ``flatten_levels``."""
    modules = [sys.modules[kind.__module__] for kind in type(head).__mro__]
    modules = [module for module in modules if getattr(module, "flatten_levels", None) is flatten_levels]
    if not modules:
        raise ValueError(f"{type(head).__name__} does not join its levels with poise.nn.head_layers.flatten_levels")
    try:
        for module in modules:
            module.flatten_levels = joining  # type: ignore[attr-defined]
        yield
    finally:
        for module in modules:
            module.flatten_levels = flatten_levels  # type: ignore[attr-defined]
