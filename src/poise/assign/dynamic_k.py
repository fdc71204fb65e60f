"""Cost-based assignment with a number of places that depends on the object (SimOTA: Ge et al. 2021, section 3.4).

Each object counts its places by the sum of its largest overlaps, k = max(1, floor(sum)), and takes the k cheapest.
A place taken by several objects goes to the object that is cheapest of *all*, which need not be one of the takers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poise.boxes import iou
from poise.pairwise.chunks import object_chunks
from poise.pairwise.listing import Places
from poise.pairwise.planes import Planes, first_equal, largest_values, smallest
from poise.structures import Assignment, GroundTruth, Predictions

Costs = Callable[[slice, Tensor], Tensor]  # objects of the slice and their overlap (B,g,N) to costs (B,g,N)
LARGEST = 3e38  # a cost above it counts as this, so that pairs that may not be (infinity) stay apart


def take_cheapest(
    predictions: Predictions, truth: GroundTruth, usable: Tensor, costs_of: Callable[[Predictions], Costs], topk: int
) -> Assignment:
    """Assign by cost.

    Args:
        usable: (B,N) bool, places that may be taken at all.
        costs_of: predictions of places to the costs of their pairs, which are asked for slice by slice of the objects.
        topk: how many of an object's largest overlaps are summed, and the most places that it can take.
    """
    places = Places.of(usable)
    chosen = places.take(predictions)
    found = _among(chosen, truth, places.held, costs_of(chosen), topk)
    index, positive, quality = (places.spread(values) for values in (found.index, found.positive, found.quality))
    return Assignment(index, positive, torch.zeros_like(positive), quality)


def _among(predictions: Predictions, truth: GroundTruth, usable: Tensor, costs: Costs, topk: int) -> Assignment:
    boxes = Planes.of(predictions.boxes)
    shape, device = usable.shape, usable.device
    cheapest = torch.full(shape, torch.inf, device=device)
    favorite = torch.zeros(shape, dtype=torch.int64, device=device)
    takers, taker, nearest = torch.zeros_like(favorite), torch.full_like(favorite, -1), torch.zeros_like(cheapest)
    allowed = usable[:, None].float()
    forbidden, absent = (torch.where(there, 0.0, torch.inf) for there in (usable[:, None], truth.valid[..., None]))
    for part in object_chunks(shape[0], shape[1], truth.boxes.shape[1], device):
        overlap = boxes.iou(truth.boxes[:, part]).mul_(truth.valid[:, part, None]).mul_(allowed)
        overlap = overlap.nan_to_num_(0.0, 0.0, 0.0)
        cost = costs(part, overlap).nan_to_num_(LARGEST, LARGEST, -LARGEST).add_(forbidden).add_(absent[:, part])
        low = cost.amin(1)
        owner = first_equal(cost, low) + part.start
        favorite = torch.where(low < cheapest, owner, favorite)
        cheapest, nearest = torch.minimum(cheapest, low), torch.maximum(nearest, overlap.amax(1))
        place, taken = _choose(cost, overlap, topk)
        takers = takers.scatter_add(1, place.flatten(1), taken.flatten(1).long())
        objects = torch.arange(part.start, part.stop, device=device)[:, None]
        taker = taker.scatter_reduce(1, place.flatten(1), torch.where(taken, objects, -1).flatten(1), "amax")
    index = torch.where(takers > 1, favorite, taker).clamp(min=0)
    positive = takers > 0
    own = iou(predictions.boxes.float(), truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)))
    return Assignment(index, positive, torch.zeros_like(positive), torch.where(positive, own, nearest))


def _choose(cost: Tensor, overlap: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The ``topk`` cheapest places (B,g,K) of each object, ties to the lowest index, and which of them it takes."""
    count = min(topk, cost.shape[2])
    number = largest_values(overlap, count).sum(2).int().clamp(min=1)
    value, place = smallest(cost, count)
    rank = torch.arange(count, device=cost.device)
    return place, value & (rank < number[..., None])
