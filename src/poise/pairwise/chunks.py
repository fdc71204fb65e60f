"""Objects in chunks, and what is decided over all of them: the object that wins a prior, the nearest priors.

The planes (B,g,N) of a chunk stay within a number of elements. Three rules for conflicts occur in the papers: the
highest value wins, the smallest area wins, the cheapest object wins. The last two are the first with the negative area
and the negative cost. Ties go to the lowest index of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from poise.boxes import planar
from poise.pairwise import stored_pairs
from poise.pairwise.pairs import Pairs
from poise.pairwise.stored_pairs import Objects, overlapping, positions, smallest
from poise.structures import Assignment, GroundTruth, Predictions, Priors

Taken = TypeVar("Taken", Predictions, Assignment)

PLANE_ELEMENTS = 1 << 25  # of all (B,g,N) planes of a chunk together
CACHED_ELEMENTS = 1 << 20  # of one dense plane on a CPU: planes that stay in its cache are read several times as fast
LISTED_SHARE = 8  # at most one pair in so many is listed


def plane_elements(device: torch.device, *, dense: bool) -> int:
    """Return how many elements the planes (B,g,N) of a chunk may have; on a CPU few if all pairs are computed."""
    if not stored_pairs.allows_dynamic_shapes(device):
        return PLANE_ELEMENTS
    return min(PLANE_ELEMENTS, CACHED_ELEMENTS) if dense else LISTED_SHARE * PLANE_ELEMENTS


def object_slices(
    batch: int,
    priors: int,
    objects: int,
    *,
    planes_alive: int = 1,
    elements: int | None = None,
    dense_on: torch.device | None = None,
) -> list[slice]:
    """Slice the object axis so that ``planes_alive`` planes (B,g,N) have at most ``elements`` (``PLANE_ELEMENTS``).

    Args:
        dense_on: the device on which all pairs are computed, which gives ``elements``.
    """
    elements = elements or (plane_elements(dense_on, dense=True) if dense_on else PLANE_ELEMENTS)
    size = max(1, elements // max(1, batch * priors * planes_alive))
    return [slice(start, min(start + size, objects)) for start in range(0, objects, size)]


def chunks_of_objects(truth: GroundTruth, priors: int, planes_alive: int = 1, *, dense: bool = False) -> list[Objects]:
    """Return the objects in chunks.

    Args:
        priors: N.
        planes_alive: planes (B,g,N) that exist at the same time.
        dense: whether all pairs are computed on a CPU as well (:func:`poise.pairwise.all_pairs`), one plane at a time.
    """
    (batch, objects), elements = truth.labels.shape, plane_elements(truth.labels.device, dense=dense)
    parts = object_slices(batch, priors, objects, planes_alive=1 if dense else planes_alive, elements=elements)
    return [Objects(truth.boxes[:, part], truth.labels[:, part], truth.valid[:, part], part) for part in parts]


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
    number = torch.where(value == highest.gather(1, flat), number, objects)
    index = torch.full_like(highest, objects, dtype=torch.int64).scatter_reduce(1, flat, number, "amin")
    return BestObject(highest, torch.where(highest > -torch.inf, index, 0))


def sum_by_class(positive: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sum pair weights (B,N,G) over the objects of each class ``labels`` (B,G), giving (B,N,C)."""
    batch, priors, objects = positive.shape
    total = positive.new_zeros(batch, num_classes, priors)
    for part in object_slices(batch, priors, objects, planes_alive=8):
        weight = positive[..., part].transpose(1, 2)
        total = total.scatter_add(1, labels[:, part, None].expand_as(weight), weight)
    return total.transpose(1, 2)


def best_iou(boxes: Tensor, truth: GroundTruth) -> Tensor:
    """Return the greatest IoU of each prior's box (B,N,4) with an object, (B,N)."""
    best = torch.zeros_like(boxes[..., 0], dtype=torch.float32)
    for objects in chunks_of_objects(truth, boxes.shape[1], planes_alive=4):
        pairs, overlap = overlapping(boxes, objects)
        best = torch.maximum(best, pairs.max_by_prior(overlap))
    return best


def nearest_per_level(priors: Priors, boxes: Tensor, topk: int, usable: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``topk`` nearest priors of each level and object; ties go to the lowest index.

    Args:
        boxes: (B,G,4) objects.
        usable: (B,N) bool, priors that may be taken; all.

    Returns:
        Index into the N priors and whether a prior is usable, both (B,G,K) with K the sum over levels of at most
        ``topk``.
    """
    x, y = planar(priors.centers.float()).unbind(-1)
    if usable is not None:
        x = torch.where(usable, x, torch.inf)
    center, elements = (boxes[..., :2] + boxes[..., 2:]) / 2, plane_elements(boxes.device, dense=True)
    found, start = [], 0
    for size in priors.level_sizes:
        level, chunks = slice(start, start + size), []
        for part in object_slices(len(boxes), size, boxes.shape[1], elements=elements):
            across = center[:, part, None, 0] - x[:, None, level]
            along = center[:, part, None, 1] - y[:, None, level]
            chunks.append(smallest(along.square_().addcmul_(across, across), min(topk, size))[1] + start)
        found.append(torch.cat(chunks, 1))
        start += size
    index = torch.cat(found, 2)
    if usable is None:
        return index, torch.ones_like(index, dtype=torch.bool)
    return index, usable[:, None].expand(-1, index.shape[1], -1).gather(2, index)


def none_left(running: Tensor) -> bool:
    """Return whether all elements are known to be False, so that an iteration may stop early.

    Always False where looking at the values would synchronize.
    """
    return stored_pairs.allows_dynamic_shapes(running.device) and not running.any()


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
        if not stored_pairs.allows_dynamic_shapes(mask.device):
            return CompactPriors(mask, None, mask.shape[1])
        position, size = positions(mask), mask.shape[1]
        image, prior = position // size, position % size
        counts = torch.bincount(image, minlength=len(mask))
        rank = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        width = max(1, int(counts.max()))
        index = prior.new_zeros(len(mask), width).index_put_((image, rank), prior)
        return CompactPriors(torch.arange(width) < counts[:, None], index, size)

    def take(self, value: Taken) -> Taken:
        """Return the predictions or the assignment of these priors."""
        return value if self.index is None else value.take(self.index)

    def scatter_back(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Write values (B,V) to all priors (B,N), ``fill`` elsewhere."""
        full = values.new_full((len(values), self.total), fill)
        if self.index is None:
            return torch.where(self.mask, values, full)
        first = torch.arange(len(values))[:, None] * self.total
        full.view(-1)[(self.index + first)[self.mask]] = values[self.mask]
        return full

    def scatter_back_assignment(self, found: Assignment) -> Assignment:
        """Return the assignment of all priors; the others are negatives of quality 0."""
        return Assignment(*(self.scatter_back(t) for t in (found.index, found.positive, found.ignored, found.quality)))
