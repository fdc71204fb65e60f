"""What assigners and criteria compute with: values of (object, prior) pairs, whatever the storage.

Accelerators and captured graphs, whose shapes must not depend on data, store all pairs with a mask; a CPU lists the
pairs that matter, about one in a hundred.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from poise.boxes import planar
from poise.predictions import Predictions, QualityPredictions

TINY = 1e-12
LAST_KEY = torch.iinfo(torch.int64).max


def accumulate_dtype(device: torch.device) -> torch.dtype:
    """Return the type of sums: float64, so that their order does not show in float32; float32 on Apple's devices."""
    return torch.float32 if device.type == "mps" else torch.float64


def positions(mask: Tensor) -> Tensor:
    """Return the flat positions (P,) int64 where a tensor on a CPU is True.

    NumPy's loop has no branches: it takes a quarter of the time of ``torch.nonzero``.
    """
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` smallest of (...,N) float32 values, ascending, and their indices; no value may be NaN.

    Ties go to the lowest index: value and index are sorted as one number.
    """
    index = torch.arange(values.shape[-1], device=values.device)
    keys = sort_keys(values).bitwise_left_shift_(32).bitwise_or_(index)
    found = keys.topk(count, -1, largest=False).values
    return values_of_keys(found >> 32), found & 0xFFFFFFFF


def sort_keys(values: Tensor) -> Tensor:
    """Return integers of 32 bits, as int64, in the order of float32 values; no value may be NaN."""
    return _flip_magnitude((values + 0.0).view(torch.int32)).long()  # -0 becomes 0


def values_of_keys(keys: Tensor) -> Tensor:
    """The inverse of :func:`sort_keys`."""
    return _flip_magnitude(keys.int()).view(torch.float32)


def _flip_magnitude(bits: Tensor) -> Tensor:
    """Flip the 31 lower bits of negative numbers, whose magnitude a float stores without a sign; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


class Pairs(ABC):
    """Pairs of g objects and N priors of each of B images that matter.

    Values of pairs have the shape (B,g,N) or (P,), or broadcast to it; values of pairs that do not matter are ignored.
    Sums are accumulated in float64, so that they do not depend on the storage.
    """

    @abstractmethod
    def from_objects(self, values: Tensor) -> Tensor:
        """Return the value of each pair's object, from (B,g,...)."""

    @abstractmethod
    def from_priors(self, values: Tensor) -> Tensor:
        """Return the value of each pair's prior, from (1|B,N,...)."""

    @abstractmethod
    def from_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the value of each pair's prior at the class of its object, from (B,N,C) and labels (B,g)."""

    @abstractmethod
    def from_dense(self, values: Tensor) -> Tensor:
        """Return values of all pairs (B,g,N) as values of these."""

    @abstractmethod
    def to_dense(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Return values of all pairs, (B,g,N), ``fill`` where a pair does not matter."""

    @abstractmethod
    def where(self, mask: Tensor) -> Pairs:
        """Return the pairs whose ``mask`` is True."""

    @abstractmethod
    def or_if_empty(self, mask: Tensor) -> Pairs:
        """Add the pairs of ``mask`` (B,g,N) to objects that have no pair."""

    @abstractmethod
    def sum_by_object(self, values: Tensor) -> Tensor:
        """Return the sum over each object's pairs, (B,g)."""

    @abstractmethod
    def sum_by_prior(self, values: Tensor) -> Tensor:
        """Return the sum over each prior's pairs, (B,N)."""

    @abstractmethod
    def max_by_object(self, values: Tensor) -> Tensor:
        """Return the maximum over each object's pairs, (B,g); -infinity without pairs."""

    @abstractmethod
    def max_by_prior(self, values: Tensor) -> Tensor:
        """Return the maximum over each prior's pairs, (B,N); -infinity without pairs."""

    @abstractmethod
    def argmax_by_prior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maximum over each prior's pairs and the first of its objects, (B,N); -infinity and 0 without."""

    @abstractmethod
    def topk_by_object(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` largest values of each object, descending, and their priors, (B,g,min(count,N)).

        Values are not negative; all other priors of an object count as 0. Ties go to the lowest index of the prior.
        """

    @abstractmethod
    def scatter_by_class(self, values: Tensor, labels: Tensor, target: Tensor, reduce: Literal["last", "amin"]) -> None:
        """Write values into ``target`` (B,C,N) at each pair's prior and the class (B,g) of its object, in place.

        Args:
            reduce: with several objects of a class at a prior, the value of the last one, or the minimum, in which
                the value of ``target`` takes part.
        """

    def normalize_by_object(self, values: Tensor, high: float = torch.inf) -> Tensor:
        """Map values from the range of each object, from its minimum to its maximum or ``high``, to [0,1]."""
        low, top = -self.max_by_object(-values), self.max_by_object(values).clamp(max=high)
        return (values - self.from_objects(low) + TINY) / self.from_objects(top - low + TINY)

    def class_scores(self, predictions: Predictions, labels: Tensor) -> Tensor:
        """Return the score of each pair's prior for the class of its object, float32.

        Computed in float64: the last bit of a float32 sigmoid depends on the vectorization, so on the storage.
        """
        dtype = accumulate_dtype(labels.device)
        values: dict[str, Tensor] = {"logits": self.from_classes(predictions.logits, labels).to(dtype)[..., None]}
        if isinstance(predictions, QualityPredictions):
            values["quality"] = self.from_priors(predictions.quality).to(dtype)
        return replace(predictions, **values).scores().squeeze(-1).float()  # type: ignore[arg-type]


@dataclass(frozen=True)
class DensePairs(Pairs):
    """All pairs and a mask; the priors come last, so that rows are long and contiguous."""

    mask: Tensor  # (B,g,N) bool

    def from_objects(self, values: Tensor) -> Tensor:
        return values[:, :, None]

    def from_priors(self, values: Tensor) -> Tensor:
        return (planar(values) if values.ndim == 3 else values)[:, None]

    def from_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        planes = values.transpose(1, 2)  # (B,C,N)
        first = torch.arange(len(planes), device=labels.device)[:, None] * planes.shape[1]
        return planes.flatten(0, 1).index_select(0, (labels + first).flatten()).view(*labels.shape, -1)

    def from_dense(self, values: Tensor) -> Tensor:
        return values

    def to_dense(self, values: Tensor, fill: float = 0.0) -> Tensor:
        return torch.where(self.mask, values, fill)

    def where(self, mask: Tensor) -> DensePairs:
        return DensePairs(self.mask & mask)

    def or_if_empty(self, mask: Tensor) -> DensePairs:
        return DensePairs(torch.where(self.mask.any(2, keepdim=True), self.mask, mask))

    def sum_by_object(self, values: Tensor) -> Tensor:
        return self.to_dense(values).sum(2, dtype=accumulate_dtype(values.device)).float()

    def sum_by_prior(self, values: Tensor) -> Tensor:
        return self.to_dense(values).sum(1, dtype=accumulate_dtype(values.device)).float()

    def max_by_object(self, values: Tensor) -> Tensor:
        return self.to_dense(values, -torch.inf).amax(2)

    def max_by_prior(self, values: Tensor) -> Tensor:
        return self.to_dense(values, -torch.inf).amax(1)

    def argmax_by_prior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        values = self.to_dense(values, -torch.inf)
        maximum, count = values.amax(1), values.shape[1]
        order = torch.arange(count, 0, -1, device=values.device, dtype=values.dtype)[:, None]
        first = values.eq_(maximum[:, None]).mul_(order).amax(1)  # of the objects at the maximum
        return maximum, torch.where(maximum > -torch.inf, count - first.long(), 0)

    def topk_by_object(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        value, prior = smallest(-self.to_dense(values), min(count, self.mask.shape[2]))
        return -value, prior

    def scatter_by_class(self, values: Tensor, labels: Tensor, target: Tensor, reduce: Literal["last", "amin"]) -> None:
        values, index = values.expand_as(self.mask), labels[..., None].expand_as(self.mask)
        if reduce == "amin":
            target.scatter_reduce_(1, index, torch.where(self.mask, values, torch.inf), "amin")
            return
        number = torch.arange(1, self.mask.shape[1] + 1, device=labels.device)[:, None]
        last = torch.zeros_like(target, dtype=torch.int64)
        last = last.scatter_reduce(1, index, torch.where(self.mask, number, 0), "amax")
        written = values.gather(1, (last - 1).clamp(min=0))
        target.copy_(torch.where(last > 0, written, target))


@dataclass(frozen=True)
class SparsePairs(Pairs):
    """P pairs as the positions of their objects and priors."""

    shape: torch.Size  # B, g, N
    object: Tensor  # (P,) int64 into B * g
    prior: Tensor  # (P,) int64 into B * N

    @staticmethod
    def from_mask(mask: Tensor) -> SparsePairs:
        """List the pairs of a mask (B,g,N), the pairs of one object one after the other."""
        position, (_, objects, priors) = positions(mask), mask.shape
        owner = position // priors
        return SparsePairs(mask.shape, owner, position - (owner - owner // objects) * priors)

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
        return maximum, torch.where(maximum > -torch.inf, first.view_as(maximum), 0)

    def topk_by_object(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :meth:`Pairs.topk_by_object`; needs the pairs of an object one after the other.

        An object's row of the table has its pairs and then the first ``count`` priors with the value 0, since no
        others with the value 0 can be among the largest.
        """
        rows, count = self.shape[0] * self.shape[1], min(count, self.shape[2])
        # A bound that an object's largest values reach: its pairs are dealt to 4 * count groups, whose maxima are
        # among its largest values.
        groups = 4 * count
        group = self.object * groups + _ranks(self.object, rows)[0] % groups
        maxima = values.new_full((rows * groups,), -torch.inf).scatter_reduce_(0, group, values, "amax")
        bound = maxima.view(rows, groups).topk(count).values[:, -1].index_select(0, self.object)
        listed = positions(values >= bound)
        owner, prior = self.object.index_select(0, listed), self.prior.index_select(0, listed) % self.shape[2]
        rank, width = _ranks(owner, rows)
        table = torch.full((rows, width + count), LAST_KEY)
        table[:, width:] = torch.arange(count)
        low = positions(self.prior % self.shape[2] < count)
        table[self.object[low], width + self.prior[low] % self.shape[2]] = LAST_KEY
        table[owner, rank] = sort_keys(-values.index_select(0, listed)).bitwise_left_shift_(32).bitwise_or_(prior)
        found = table.topk(count, 1, largest=False).values.view(*self.shape[:2], count)
        return -values_of_keys(found >> 32), found & 0xFFFFFFFF

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


def _ranks(owner: Tensor, rows: int) -> tuple[Tensor, int]:
    """Return the number of each pair among those of its object, whose pairs follow each other, and their maximum."""
    pairs = torch.bincount(owner, minlength=rows)
    return torch.arange(len(owner)) - (pairs.cumsum(0) - pairs).index_select(0, owner), int(pairs.max())
