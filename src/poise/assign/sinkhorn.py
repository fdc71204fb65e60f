"""Optimal transport by Sinkhorn's iteration (Cuturi 2013): from objects' supplies to priors that demand one unit each.

All quantities are logarithms in units of the temperature, so that nothing underflows. The number of iterations is
fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.pairwise import BestObject, Objects, Pairs

LEAST = 1e-8  # added to supply and demand before the logarithm, as in the original


@dataclass(frozen=True)
class Routes:
    """Some objects, the priors that each may supply, and the costs in units of the temperature."""

    objects: Objects
    pairs: Pairs
    cost: Tensor  # of pairs, finite

    def sent(self, price: Tensor) -> Tensor:
        """Logarithm of what each object sends at prices (B,N), but for its own potential, (B,g)."""
        value = self.pairs.from_priors(price) - self.cost
        highest = self.pairs.max_by_object(value)
        return self.pairs.sum_by_object((value - self.pairs.from_objects(highest)).exp()).log() + highest


@dataclass(frozen=True)
class Transport:
    """A transport problem: objects and the background supply, priors demand."""

    routes: Sequence[Routes]
    background: Tensor  # (B,N) float32, finite: its cost
    supply: Tensor  # (B,G) float32; 0: the object takes no part
    rest: Tensor  # (B,) float32 >= 0, supply of the background

    def prices(self, iterations: int) -> Tensor:
        """The dual variable of each prior's demand after so many iterations, (B,N)."""
        objects = torch.where(self.supply > 0, 0.0, -torch.inf)  # dual variables of the supplies
        background = torch.zeros_like(self.rest)
        price = torch.zeros_like(self.background)
        for _ in range(iterations):
            price = -self._offers(objects, background)
            sent = torch.cat([routes.sent(price) for routes in self.routes], 1)
            objects = torch.where(self.supply > 0, (self.supply + LEAST).log() - sent, -torch.inf)
            background = (self.rest + LEAST).log() - torch.logsumexp(price - self.background, 1)
        return price

    def winners(self, price: Tensor) -> BestObject:
        """The object of each prior whose shipment is closest to the largest that the object sends to any prior.

        Priors of which the background is the winner have none. Ties go to the lowest index, the background last.
        """
        best = BestObject.none(price.shape, price.device)
        for routes in self.routes:
            shipment = routes.pairs.from_priors(price) - routes.cost
            shipment = shipment - routes.pairs.from_objects(routes.pairs.max_by_object(shipment))
            best = best.update(routes.pairs, shipment, routes.objects)
        background = price - self.background
        wins = best.value >= background - background.amax(1, keepdim=True)
        return replace(best, value=torch.where(wins, best.value, -torch.inf))

    def _offers(self, objects: Tensor, background: Tensor) -> Tensor:
        """Logarithm of what objects (B,G) and background (B,) together offer each prior, (B,N)."""
        rest = background[:, None] - self.background
        offers = [(r.pairs, r.pairs.from_objects(objects[:, r.objects.part]) - r.cost) for r in self.routes]
        highest = torch.stack([rest, *(pairs.max_by_prior(offer) for pairs, offer in offers)]).amax(0)
        total = (rest - highest).exp()
        for pairs, offer in offers:
            total = total + pairs.sum_by_prior((offer - pairs.from_priors(highest)).exp())
        return total.log() + highest
