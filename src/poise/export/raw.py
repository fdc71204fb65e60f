"""Record the outputs of a head's layers before decoding, and decode recorded outputs without the layers.

Every dense head concatenates its levels with ``AnchorGrid.flatten`` and computes boxes and scores from the results
without further learned layers. The results are recorded, or replaced by recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from poise.nn.layers import AnchorGrid
from poise.protocols import Head
from poise.structures import Predictions

Flatten = Callable[..., list[Tensor]]


def recorded(head: Head, maps: Sequence[Tensor]) -> tuple[Predictions, list[Tensor]]:
    """Run the head; return its predictions and the concatenated outputs (B,N,·) of its layers."""
    outputs: list[Tensor] = []
    flatten = AnchorGrid.flatten

    def record(grid: AnchorGrid, *levels: Sequence[Tensor]) -> list[Tensor]:
        flat = flatten(grid, *levels)
        outputs.extend(flat)
        return flat

    with _flatten_replaced(record):
        predictions = head(maps)
    if not outputs:
        raise ValueError(f"{type(head).__name__} does not concatenate its levels with AnchorGrid.flatten")
    return predictions, outputs


@torch.no_grad()
def decoded(head: Head, outputs: Sequence[Tensor], channels: int, shapes: Sequence[tuple[int, int]]) -> Predictions:
    """Decode outputs (B,N,·) of the head's layers; ``shapes`` are the heights and widths of the levels.

    The head runs on maps with batch size 0, so its layers cost nothing.
    """
    remaining = iter(outputs)
    with _flatten_replaced(lambda grid, *levels: [next(remaining) for _ in levels]):
        return head([torch.zeros(0, channels, height, width) for height, width in shapes])


@contextmanager
def _flatten_replaced(replacement: Flatten) -> Iterator[None]:
    """Replace ``AnchorGrid.flatten`` inside the context."""
    original = AnchorGrid.flatten
    try:
        AnchorGrid.flatten = replacement  # type: ignore[method-assign]
        yield
    finally:
        AnchorGrid.flatten = original  # type: ignore[method-assign]
