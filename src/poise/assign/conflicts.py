"""Which object a prior is assigned to, where several claim it.

Three rules occur in the papers: the highest value wins, the smallest area wins, the cheapest object wins. The last two
are the first with the negative area and the negative cost. Ties go to the lowest index of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.pairwise import Objects, Pairs


@dataclass(frozen=True)
class BestObject:
    """The object of the highest value at each prior, over chunks of objects."""

    value: Tensor  # (B,N) float32, -infinity where no object claims the prior
    index: Tensor  # (B,N) int64 into G, 0 where no object claims the prior

    @staticmethod
    def none(shape: Sequence[int], device: torch.device) -> BestObject:
        """Before any object is seen; ``shape`` is (B,N)."""
        value = torch.full(tuple(shape), -torch.inf, device=device)
        return BestObject(value, torch.zeros_like(value, dtype=torch.int64))

    def update(self, pairs: Pairs, values: Tensor, objects: Objects) -> BestObject:
        """Let the next objects claim priors with ``values`` of pairs."""
        value, index = pairs.argmax_by_prior(values)
        better = value > self.value
        return BestObject(torch.maximum(value, self.value), torch.where(better, index + objects.part.start, self.index))

    @property
    def found(self) -> Tensor:
        """Priors that an object claims, (B,N) bool."""
        return self.value > -torch.inf


def highest_value_wins(prior: Tensor, value: Tensor, positive: Tensor, num_priors: int) -> BestObject:
    """Return the object of the highest value at each prior, from the candidates of each object.

    Args:
        prior: (B,G,K) int64 into the N priors, an object's candidates.
        value: (B,G,K) of the candidates.
        positive: (B,G,K) bool, the candidates that claim their prior.
    """
    (batch, objects, _), flat = prior.shape, prior.flatten(1)
    value = torch.where(positive, value, -torch.inf).flatten(1)
    highest = value.new_full((batch, num_priors), -torch.inf).scatter_reduce(1, flat, value, "amax")
    number = torch.arange(objects, device=prior.device)[:, None].expand_as(prior).flatten(1)
    number = torch.where(positive.flatten(1) & (value == highest.gather(1, flat)), number, objects)
    index = torch.full_like(highest, objects, dtype=torch.int64).scatter_reduce(1, flat, number, "amin")
    return BestObject(highest, torch.where(index < objects, index, 0))
