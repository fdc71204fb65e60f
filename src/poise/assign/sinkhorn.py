"""Optimal transport by Sinkhorn's iterations (Cuturi 2013), of objects' supply to places that each want one unit.

Everything is a logarithm in units of the temperature, so that nothing underflows. The number of iterations is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.pairwise.pairs import Pairs

LEAST = 1e-8  # added to supply and demand before the logarithm, as in the original


@dataclass(frozen=True)
class Lane:
    """Some of the objects, the places that each may send to, and what that costs in units of the temperature."""

    part: slice  # of the objects
    pairs: Pairs
    cost: Tensor  # of every pair, finite

    def sent(self, price: Tensor) -> Tensor:
        """Logarithm of what each object sends at prices (B,N), but for what it has to offer, (B,g)."""
        value = self.pairs.of_places(price) - self.cost
        most = self.pairs.most(value)
        return self.pairs.total((value - self.pairs.of_objects(most)).exp()).log() + most


@dataclass(frozen=True)
class Transport:
    """A problem: objects and the background supply, places take."""

    lanes: Sequence[Lane]
    background: Tensor  # (B,N) float32, finite: what it costs
    supply: Tensor  # (B,G) float32; 0: the object takes no part
    rest: Tensor  # (B,) float32 >= 0, supply of the background

    def prices(self, iterations: int) -> Tensor:
        """What each place has to pay (B,N): the dual of the demand after so many iterations."""
        ours = torch.where(self.supply > 0, 0.0, -torch.inf)
        nobody = torch.zeros_like(self.rest)
        price = torch.zeros_like(self.background)
        for _ in range(iterations):
            price = -self._offers(ours, nobody)
            sent = torch.cat([lane.sent(price) for lane in self.lanes], 1)
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
        for part, pairs, cost in ((lane.part, lane.pairs, lane.cost) for lane in self.lanes):
            share = pairs.of_places(price) - cost
            share = share - pairs.of_objects(pairs.most(share))
            strongest = pairs.place_most(share)
            first = pairs.place_owner(share == pairs.of_places(strongest)) + part.start
            index = torch.where(strongest > best, first, index)
            best = torch.maximum(best, strongest)
        return index, (best > -torch.inf) & (best >= nobody - nobody.amax(1, keepdim=True))

    def _offers(self, ours: Tensor, nobody: Tensor) -> Tensor:
        """Logarithm of what objects (B,G) and background (B,) together offer each place, (B,N)."""
        rest = nobody[:, None] - self.background
        offers = [(lane.pairs, lane.pairs.of_objects(ours[:, lane.part]) - lane.cost) for lane in self.lanes]
        most = torch.stack([rest, *(pairs.place_most(offer) for pairs, offer in offers)]).amax(0)
        total = (rest - most).exp()
        for pairs, offer in offers:
            total = total + pairs.place_total((offer - pairs.of_places(most)).exp())
        return total.log() + most
