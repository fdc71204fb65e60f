"""Cost-based assignment with a number of places that depends on the object (SimOTA: Ge et al. 2021, section 3.4).

Each object counts its places by the sum of its largest overlaps, k = max(1, floor(sum)), and takes the k cheapest.
A place taken by several objects goes to the object that is cheapest of *all*, which need not be one of the takers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poise.assign.protocol import lowest_index, object_chunks
from poise.boxes import iou
from poise.structures import Assignment, GroundTruth, Predictions

Pairs = Callable[[slice, Tensor], Tensor]  # objects of the slice and their overlap (B,N,g) to costs (B,N,g)
LARGEST = 3e38  # a cost above it counts as this, so that pairs that may not be (infinity) stay apart
BEYOND = 0x7FFFFFFF  # what stands for such a pair among the bits of costs


def take_cheapest(predictions: Predictions, truth: GroundTruth, usable: Tensor, costs: Pairs, topk: int) -> Assignment:
    """Assign by cost.

    Args:
        usable: (B,N) bool, places that may be taken at all.
        costs: the pairs' costs, asked for slice by slice of the objects.
        topk: how many of an object's largest overlaps are summed, and the most places that it can take.
    """
    boxes = predictions.boxes.float()
    (batch, places), device = usable.shape, usable.device
    shape = (batch, places)
    cheapest = torch.full(shape, torch.inf, device=device)
    favourite = torch.zeros(shape, dtype=torch.int64, device=device)
    takers, taker, nearest = torch.zeros_like(favourite), torch.full_like(favourite, -1), torch.zeros_like(cheapest)
    for part in object_chunks(batch, places, truth.boxes.shape[1]):
        allowed = usable[..., None] & truth.valid[:, None, part]
        overlap = torch.where(allowed, iou(boxes[:, :, None], truth.boxes[:, None, part]), 0.0)
        cost = torch.where(allowed, costs(part, overlap).clamp(max=LARGEST), torch.inf)
        low = cost.amin(2)
        owner = lowest_index(cost == low[..., None]) + part.start
        favourite = torch.where(low < cheapest, owner, favourite)
        cheapest, nearest = torch.minimum(cheapest, low), torch.maximum(nearest, overlap.amax(2))
        place, taken = _choose(cost.transpose(1, 2), overlap.transpose(1, 2), topk)
        takers = takers.scatter_add(1, place.flatten(1), taken.flatten(1).long())
        objects = torch.arange(part.start, part.stop, device=device)[:, None]
        taker = taker.scatter_reduce(1, place.flatten(1), torch.where(taken, objects, -1).flatten(1), "amax")
    index = torch.where(takers > 1, favourite, taker).clamp(min=0)
    positive = takers > 0
    own = iou(boxes, truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)))
    return Assignment(index, positive, torch.zeros_like(positive), torch.where(positive, own, nearest))


def _choose(cost: Tensor, overlap: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The ``topk`` cheapest places (B,g,K) of each object, ties to the lowest index, and which of them it takes."""
    count = min(topk, cost.shape[2])
    number = overlap.topk(count, 2).values.sum(2).int().clamp(min=1)
    value, place = smallest(cost, count)
    rank = torch.arange(count, device=cost.device)
    return place, value & (rank < number[..., None])


def smallest(cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whether finite, and where: the ``count`` smallest of (...,N) float32 values, ties to the lowest index."""
    bits = cost.contiguous().view(torch.int32).long()
    bits = torch.where(bits < 0, bits ^ BEYOND, bits)  # now integers order as the floats do
    bits = torch.where(cost < torch.inf, bits, BEYOND)
    keys = (bits << 32) | torch.arange(cost.shape[-1], device=cost.device)  # the index makes every key unique
    best = keys.topk(count, -1, largest=False).values
    return (best >> 32) < BEYOND, best & 0xFFFFFFFF
