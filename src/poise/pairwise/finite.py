"""Priors with finite predictions, and priors that are gathered because few of them matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from poise.pairwise import devices
from poise.structures import Assignment, Predictions, map_tensors

Taken = TypeVar("Taken", Predictions, Assignment)
Scattered = TypeVar("Scattered", Assignment, Tensor)


def only_finite(predictions: Predictions, mask: Tensor) -> Tensor:
    """Return the priors of ``mask`` (B,N) whose predictions are all finite numbers."""
    if not devices.allows_dynamic_shapes(mask.device):
        return mask & predictions.finite()
    finite, among = torch.zeros_like(mask), devices.positions(mask)
    finite.view(-1)[among] = predictions.finite(among)
    return finite


@dataclass(frozen=True)
class CompactPriors:
    """The V priors of each image that matter, in their order; images with fewer are padded.

    Where shapes may not depend on data, all N priors with a mask. With 10 objects, the class costs of all 22,400 priors
    would make SimOTA slower than its literal form: 50 ms an image for 41 ms, with compact priors 9 ms. Dynamic soft
    labels take 6 ms instead of 56 ms, PAA 8 ms instead of 27 ms (CPU time of one thread).
    """

    mask: Tensor  # (B,V) bool
    index: Tensor | None  # (B,V) int64 into N; None: all priors
    total: int  # N

    @staticmethod
    def of(mask: Tensor) -> CompactPriors:
        """Select the priors of ``mask`` (B,N)."""
        if not devices.allows_dynamic_shapes(mask.device):
            return CompactPriors(mask, None, mask.shape[1])
        position, size = devices.positions(mask), mask.shape[1]
        image, prior = position // size, position % size
        counts = torch.bincount(image, minlength=len(mask))
        rank = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        width = max(1, int(counts.max()))
        index = prior.new_zeros(len(mask), width).index_put_((image, rank), prior)
        return CompactPriors(torch.arange(width) < counts[:, None], index, size)

    def take(self, value: Taken) -> Taken:
        """Return the predictions or the assignment of these priors."""
        return value if self.index is None else value.take(self.index)

    def scatter_back(self, value: Scattered, fill: float = 0.0) -> Scattered:
        """Write values (B,V), or those of an assignment, to all priors (B,N), ``fill`` elsewhere."""
        return map_tensors(value, lambda t: self._scatter_back(t, fill))

    def _scatter_back(self, values: Tensor, fill: float) -> Tensor:
        full = values.new_full((len(values), self.total), fill)
        if self.index is None:
            return torch.where(self.mask, values, full)
        first = torch.arange(len(values))[:, None] * self.total
        full.view(-1)[(self.index + first)[self.mask]] = values[self.mask]
        return full
