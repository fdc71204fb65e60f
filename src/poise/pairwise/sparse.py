"""Listed pairs: for CPUs, where about one pair in a hundred matters, and where the candidates of objects are listed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poise.pairwise.devices import accumulate_dtype, positions
from poise.pairwise.pairs import Pairs
from poise.pairwise.topk import sort_keys, values_of_keys

LAST_KEY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class SparsePairs(Pairs):
    """P pairs as the positions of their objects and priors."""

    shape: torch.Size  # B, g, N
    object: Tensor  # (P,) int64 into B * g
    prior: Tensor  # (P,) int64 into B * N

    @staticmethod
    def from_mask(mask: Tensor) -> SparsePairs:
        """List the pairs of a mask (B,g,N), the pairs of one object one after the other."""
        owner, prior = _split(positions(mask), mask.shape)
        return SparsePairs(mask.shape, owner, prior)

    def from_objects(self, values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, self.object)

    def from_priors(self, values: Tensor) -> Tensor:
        shared = len(values) < self.shape[0]
        return values.flatten(0, 1).index_select(0, self.prior % self.shape[2] if shared else self.prior)

    def from_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        return values.flatten().index_select(0, self.prior * values.shape[2] + self.from_objects(labels))

    def from_dense(self, values: Tensor) -> Tensor:
        return values.flatten().index_select(0, self._position())

    def to_dense(self, values: Tensor, fill: float = 0.0) -> Tensor:
        return values.new_full((self.shape.numel(),), fill).scatter_(0, self._position(), values).view(self.shape)

    def where(self, mask: Tensor) -> SparsePairs:
        listed = positions(mask)
        return SparsePairs(self.shape, self.object.index_select(0, listed), self.prior.index_select(0, listed))

    def or_if_empty(self, mask: Tensor) -> SparsePairs:
        empty = (torch.bincount(self.object, minlength=self.shape[0] * self.shape[1]) == 0).view(self.shape[:2])
        if not empty.any():
            return self
        more = SparsePairs.from_mask(mask & empty[..., None])
        return SparsePairs(self.shape, torch.cat((self.object, more.object)), torch.cat((self.prior, more.prior)))

    def sum_by_object(self, values: Tensor) -> Tensor:
        return self._sum(values, self.object, self.shape[:2])

    def sum_by_prior(self, values: Tensor) -> Tensor:
        return self._sum(values, self.prior, self.shape[::2])

    def max_by_object(self, values: Tensor) -> Tensor:
        return self._max(values, self.object, self.shape[:2])

    def max_by_prior(self, values: Tensor) -> Tensor:
        return self._max(values, self.prior, self.shape[::2])

    def argmax_by_prior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        maximum, count = self.max_by_prior(values), self.shape[1]
        number = torch.where(values == self.from_priors(maximum), self.object % count, count)
        first = self.prior.new_full((maximum.numel(),), count).scatter_reduce_(0, self.prior, number, "amin")
        return maximum, torch.where(first < count, first, 0).view_as(maximum)

    def topk_by_object(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :meth:`Pairs.topk_by_object`; needs the pairs of an object one after the other.

        An object's row of the table has its pairs and then the first ``count`` priors with the value 0, since no
        others with the value 0 can be among the largest.
        """
        rows, count = self.shape[0] * self.shape[1], min(count, self.shape[2])
        listed = positions(values >= self._least_of_largest(values, count))
        owner, prior = self.object.index_select(0, listed), self.prior.index_select(0, listed) % self.shape[2]
        rank, width = _ranks(owner, rows)
        table = torch.full((rows, width + count), LAST_KEY)
        table[:, width:] = torch.arange(count)
        low = positions(self.prior % self.shape[2] < count)
        table[self.object[low], width + self.prior[low] % self.shape[2]] = LAST_KEY
        table[owner, rank] = sort_keys(-values.index_select(0, listed)).bitwise_left_shift_(32).bitwise_or_(prior)
        found = table.topk(count, 1, largest=False).values.view(*self.shape[:2], count)
        return -values_of_keys(found >> 32), found & 0xFFFFFFFF

    def _least_of_largest(self, values: Tensor, count: int) -> Tensor:
        """Return a value of each pair's object that its ``count`` largest values are not below, tight for most.

        The pairs of an object are dealt to 4 * ``count`` groups, of whose maxima as many are among its largest values.
        """
        rows, groups = self.shape[0] * self.shape[1], 4 * count
        group = self.object * groups + _ranks(self.object, rows)[0] % groups
        maxima = values.new_full((rows * groups,), -torch.inf).scatter_reduce_(0, group, values, "amax")
        return maxima.view(rows, groups).topk(count).values[:, -1].index_select(0, self.object)

    def scatter_by_class(self, values: Tensor, labels: Tensor, target: Tensor, reduce: Literal["last", "amin"]) -> None:
        count, classes = self.shape[1], target.shape[1]
        image, prior = self.prior // self.shape[2], self.prior % self.shape[2]
        index = (image * classes + self.from_objects(labels)) * self.shape[2] + prior  # into (B,C,N)
        if reduce == "amin":
            target.view(-1).scatter_reduce_(0, index, values, "amin")
            return
        order, pair = (index * count + self.object % count).sort()
        index = order // count
        last = torch.cat((index[1:] != index[:-1], index.new_ones(min(1, len(index)), dtype=torch.bool)))
        target.view(-1).scatter_(0, index[last], values[pair[last]])

    def _position(self) -> Tensor:
        """Return the positions of the pairs among all, (P,) into B * g * N."""
        return self.object * self.shape[2] + self.prior % self.shape[2]

    def _sum(self, values: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
        total = values.new_zeros(shape.numel(), dtype=accumulate_dtype(values.device))
        return total.index_add_(0, key, values.to(total.dtype)).float().view(shape)

    def _max(self, values: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
        return values.new_full((shape.numel(),), -torch.inf).scatter_reduce_(0, key, values, "amax").view(shape)


def _split(position: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the objects, into B * g, and the priors, into B * N, of positions into B * g * N."""
    owner = position // shape[2]
    return owner, position - (owner - owner // shape[1]) * shape[2]


def _ranks(owner: Tensor, rows: int) -> tuple[Tensor, int]:
    """Return the number of each pair among those of its object, whose pairs follow each other, and their maximum."""
    pairs = torch.bincount(owner, minlength=rows)
    return torch.arange(len(owner)) - (pairs.cumsum(0) - pairs).index_select(0, owner), int(pairs.max())
