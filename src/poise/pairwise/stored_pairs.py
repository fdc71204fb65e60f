"""The two storages of pairs, and the choice between them.

Accelerators and captured graphs, whose shapes must not depend on data, store all pairs with a mask; a CPU lists the
pairs that matter, about one in a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.boxes import distance_inside, intersect, iou, planar
from poise.pairwise.pairs import Pairs
from poise.predictions import Predictions, Priors, QualityPredictions

TINY = 1e-12
LAST_KEY = torch.iinfo(torch.int64).max
BLOCK_BITS = 5  # 32 neighboring priors


@dataclass(frozen=True)
class Objects:
    """Consecutive objects of every image."""

    boxes: Tensor  # (B,g,4) xyxy pixels
    labels: Tensor  # (B,g)
    valid: Tensor  # (B,g) bool
    part: slice  # of the G objects

    @property
    def index(self) -> Tensor:
        """The number of each object among all G, (g,) int64."""
        return torch.arange(self.part.start, self.part.stop, device=self.labels.device)


def allows_dynamic_shapes(device: torch.device) -> bool:
    """Return whether the shape of a tensor may depend on data: on a CPU, outside a captured graph.

    An accelerator would have to synchronize with the host, and a captured graph would break.
    """
    return device.type == "cpu" and not torch.compiler.is_compiling()


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


class StoredPairs(Pairs):
    """What both storages compute alike."""

    def normalize_by_object(self, values: Tensor, high: float = torch.inf) -> Tensor:
        low, top = -self.max_by_object(-values), self.max_by_object(values).clamp(max=high)
        return (values - self.from_objects(low) + TINY) / self.from_objects(top - low + TINY)

    def class_scores(self, predictions: Predictions, labels: Tensor) -> Tensor:
        # In float64: the last bit of a float32 sigmoid depends on the vectorization, so on the storage.
        dtype = accumulate_dtype(labels.device)
        values: dict[str, Tensor] = {"logits": self.from_classes(predictions.logits, labels).to(dtype)[..., None]}
        if isinstance(predictions, QualityPredictions):
            values["quality"] = self.from_priors(predictions.quality).to(dtype)
        return replace(predictions, **values).scores().squeeze(-1).float()  # type: ignore[arg-type]


@dataclass(frozen=True)
class DensePairs(StoredPairs):
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
class SparsePairs(StoredPairs):
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


def from_mask(mask: Tensor) -> Pairs:
    """Return the pairs of a mask (B,g,N)."""
    return SparsePairs.from_mask(mask) if allows_dynamic_shapes(mask.device) else DensePairs(mask)


def dense_from_mask(mask: Tensor) -> DensePairs:
    """Return the pairs of a mask (B,g,N), on every device dense."""
    return DensePairs(mask)


def all_pairs(valid: Tensor, usable: Tensor) -> DensePairs:
    """Return the pairs of every valid object (B,g) and every usable prior (B,N), on every device dense."""
    return DensePairs(valid[..., None] & usable[:, None])


def from_index(index: Tensor, priors: int) -> SparsePairs:
    """Return the pairs of each object and its K candidates (B,g,K) among N ``priors``, on every device listed."""
    batch, objects, count = index.shape
    owner = torch.arange(batch * objects, device=index.device)[:, None].expand(-1, count)
    first = torch.arange(batch, device=index.device)[:, None, None] * priors
    return SparsePairs(torch.Size((batch, objects, priors)), owner.flatten(), (index + first).flatten())


def inside(priors: Priors, objects: Objects) -> Pairs:
    """Return the pairs of valid objects and the priors whose centers lie strictly inside their boxes."""
    points = priors.centers.float().repeat(1, 1, 2)  # boxes without area
    return _related(points, objects, lambda boxes, wanted: distance_inside(boxes[..., :2], wanted) > 0)


def overlapping(boxes: Tensor, objects: Objects, usable: Tensor | None = None) -> tuple[Pairs, Tensor]:
    """Return the pairs of valid objects and the boxes of priors that have a common area, and their IoU.

    Args:
        boxes: (1|B,N,4); a box with a NaN overlaps nothing.
        usable: (B,N) bool, priors that may take part; all.
    """
    boxes = boxes.float()
    pairs = _related(boxes, objects, intersect)
    if usable is not None:
        pairs = pairs.where(pairs.from_priors(usable))
    return pairs, iou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes))


def _related(boxes: Tensor, objects: Objects, related: Callable[[Tensor, Tensor], Tensor]) -> Pairs:
    """Return the pairs of valid objects and boxes of priors (1|B,N,4) that are ``related``."""
    if allows_dynamic_shapes(boxes.device):
        return _search(boxes, objects, related)
    return DensePairs(related(planar(boxes)[:, None], objects.boxes[:, :, None]) & objects.valid[..., None])


def _search(boxes: Tensor, objects: Objects, related: Callable[[Tensor, Tensor], Tensor]) -> SparsePairs:
    """List the pairs of valid objects and boxes of priors (1|B,N,4) that are ``related``, elementwise.

    ``related`` must be False for boxes with a NaN and for boxes that do not touch the object. Most priors are far from
    an object, so the hulls of neighboring priors are tested first. Without hulls FreeAnchor takes 169 ms instead of 98
    (201,600 anchors, 60 objects), dual weighting 12 instead of 7, max-IoU 8 instead of 5 (ms an image of CPU time).
    """
    (batch, count), priors, block = objects.valid.shape, boxes.shape[1], 1 << BLOCK_BITS
    sides = pad(boxes.mT, (0, -priors % block), value=torch.nan).unflatten(2, (-1, block)).transpose(1, 2)
    blocks = sides.shape[1]  # sides: (1|B,S,4,block), contiguous within a side
    low = sides[:, None, :, :2].nan_to_num(torch.inf, torch.inf, -torch.inf).amin(-1)
    high = sides[:, None, :, 2:].nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(-1)
    start, end = objects.boxes[:, :, None].split(2, -1)
    near = torch.minimum(high - start, end - low).amin(-1) > 0
    row = positions(near & objects.valid[..., None])
    owner = row // blocks  # (R,) into B * g
    number = row - owner * blocks  # (R,) into the S blocks of an image
    image = owner // count
    hulls = sides.contiguous().flatten(0, 1).index_select(0, number if len(boxes) < batch else number + image * blocks)
    wanted = objects.boxes.flatten(0, 1).index_select(0, owner)[:, None]
    found = positions(related(hulls.mT, wanted))
    row = found >> BLOCK_BITS
    first = image * priors + (number << BLOCK_BITS)  # prior of each row, into B * N
    prior = first.index_select(0, row) + (found & block - 1)
    return SparsePairs(torch.Size((batch, count, priors)), owner.index_select(0, row), prior)


def only_finite(predictions: Predictions, mask: Tensor) -> Tensor:
    """Return the priors of ``mask`` (B,N) whose predictions are all finite numbers."""
    if not allows_dynamic_shapes(mask.device):
        return mask & predictions.finite()
    finite, among = torch.zeros_like(mask), positions(mask)
    finite.view(-1)[among] = predictions.finite(among)
    return finite
