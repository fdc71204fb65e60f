"""Optimal transport by Sinkhorn's iterations (Cuturi 2013), of objects' supply to places that each want one unit.

Everything is a logarithm in units of the temperature, so that nothing underflows. The number of iterations is fixed.
Sums over objects are folded in pairs: padding adds zeros and so changes no rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from poise.assign.protocol import lowest_index

LEAST = 1e-8  # added to supply and demand before the logarithm, as in the original


@dataclass(frozen=True)
class Transport:
    """A problem: objects and the background supply, places take; costs in units of the temperature."""

    cost: Tensor  # (B,G,N) float32; infinite where nothing may be sent
    background: Tensor  # (B,N) float32, finite
    supply: Tensor  # (B,G) float32; 0: the object takes no part
    rest: Tensor  # (B,) float32 >= 0, supply of the background
    slices: Sequence[slice]  # of the objects, worked on one after the other; sizes are one power of two, but the last

    def prices(self, iterations: int) -> Tensor:
        """What each place has to pay (B,N): the dual of the demand after so many iterations."""
        ours = torch.where(self.supply > 0, 0.0, -torch.inf)
        nobody = torch.zeros_like(self.rest)
        price = torch.zeros_like(self.background)
        for _ in range(iterations):
            price = -self._offers(ours, nobody)
            sent = torch.cat([torch.logsumexp(price[:, None] - self.cost[:, part], 2) for part in self.slices], 1)
            ours = torch.where(self.supply > 0, (self.supply + LEAST).log() - sent, -torch.inf)
            nobody = (self.rest + LEAST).log() - torch.logsumexp(price - self.background, 1)
        return price

    def winners(self, price: Tensor) -> tuple[Tensor, Tensor]:
        """Object (B,N) of which each place is nearest to the place that it sends most to, and whether it beats all.

        Ties go to the lowest index; the background comes last.
        """
        nobody = price - self.background
        best = torch.full_like(price, -torch.inf)
        index = torch.zeros(price.shape, dtype=torch.int64, device=price.device)
        for part in self.slices:
            share = price[:, None] - self.cost[:, part]
            share = torch.where(self.supply[:, part, None] > 0, share - share.amax(2, keepdim=True), -torch.inf)
            strongest = share.amax(1)
            first = lowest_index(share == strongest[:, None], 1) + part.start
            index = torch.where(strongest > best, first, index)
            best = torch.maximum(best, strongest)
        return index, (best > -torch.inf) & (best >= nobody - nobody.amax(1, keepdim=True))

    def _offers(self, ours: Tensor, nobody: Tensor) -> Tensor:
        """Logarithm of what objects (B,G) and background (B,) together offer each place, (B,N)."""
        rest = nobody[:, None] - self.background
        most = rest
        for part in self.slices:
            most = torch.maximum(most, (ours[:, part, None] - self.cost[:, part]).amax(1))
        sums = [paired_sum((ours[:, part, None] - self.cost[:, part] - most[:, None]).exp()) for part in self.slices]
        return (paired_sum(torch.stack(sums, 1)) + (rest - most).exp()).log() + most


def paired_sum(values: Tensor) -> Tensor:
    """Sum of (B,G,N) over G in pairs of neighbours, of those again, and so on: zeros at the end change nothing."""
    while values.shape[1] > 1:
        if values.shape[1] % 2:
            values = functional.pad(values, (0, 0, 0, 1))
        values = values[:, 0::2] + values[:, 1::2]
    return values[:, 0]
