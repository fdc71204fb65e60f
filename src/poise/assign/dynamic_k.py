"""Dynamic k: each object takes its cheapest priors, as many as its best predictions suggest (OTA, SimOTA).

Holds what OTA, SimOTA, dynamic soft labels and PAA share: the classification cost of a pair and the choice of k priors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.boxes import iou
from poise.pairwise import BestObject, Objects, Pairs, accumulate_dtype, chunks_of_objects, inside, smallest
from poise.structures import Assignment, GroundTruth, Priors

LARGEST = 3e38  # costs above count as this, so that infinity means that a pair is not allowed
PairCosts = tuple[Objects, Pairs, Tensor, Tensor]  # costs and IoU of the pairs, (B,g,N)


class ClassCost:
    """The classification cost of a pair: a loss summed over all classes, whose target is 1 at the object's class.

    Only the object's own class differs from the cost of background. That term is exchanged, so that no (B,G,N,C)
    tensor is made.

    Args:
        values: (B,N,C) logits or scores.
        absent: elementwise loss of values whose target is 0.
    """

    def __init__(self, values: Tensor, absent: Callable[[Tensor], Tensor]) -> None:
        self.values = values.mT.contiguous().mT  # one plane a class
        self.absent = absent(self.values)
        self.background = self.absent.sum(2, dtype=accumulate_dtype(values.device)).float()  # (B,N)

    def __call__(self, pairs: Pairs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cost of all classes but the object's own, of classes (B,g), and the values at that class."""
        others = pairs.from_priors(self.background) - pairs.from_classes(self.absent, labels)
        return others, pairs.from_classes(self.values, labels)


def focal_of_absent(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of logits whose target is 0."""
    return logits.sigmoid().pow_(gamma).mul_(softplus(logits)).mul_(1 - alpha)


def focal_of_present(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of logits whose target is 1."""
    return (-logits).sigmoid().pow_(gamma).mul_(softplus(-logits)).mul_(alpha)


def take_cheapest(costs: Iterable[PairCosts], boxes: Tensor, truth: GroundTruth, topk: int) -> Assignment:
    """Assign k priors to each object, k the sum of its ``topk`` highest IoUs, rounded down, and at least 1.

    A prior that several objects take is assigned to the cheapest of all objects, which need not be one of them
    (SimOTA: Ge et al. 2021, YOLOX, section 2.1).

    Args:
        costs: chunks of the objects with dense pairs, their costs and IoUs; the pairs are those that are allowed.
        boxes: (B,N,4) predicted.
    """
    cheapest = BestObject.none(boxes.shape[:2], boxes.device)
    num_takers, taker = torch.zeros_like(cheapest.index), torch.full_like(cheapest.index, -1)
    best_overlap, count = torch.zeros_like(cheapest.value), min(topk, boxes.shape[1])
    for objects, pairs, cost, overlap in costs:
        cost = cost.nan_to_num(LARGEST, LARGEST, -LARGEST)
        cheapest = cheapest.update(pairs, -cost, objects)
        overlap = pairs.to_dense(overlap)
        dynamic_k = dynamic_k_of(overlap.topk(count, sorted=False).values)
        value, prior = smallest(pairs.to_dense(cost, fill=torch.inf), count)
        takes = (value < torch.inf) & (torch.arange(count, device=cost.device) < dynamic_k[..., None])
        num_takers = num_takers.scatter_add(1, prior.flatten(1), takes.flatten(1).long())
        number = torch.where(takes, objects.index[:, None], -1)
        taker = taker.scatter_reduce(1, prior.flatten(1), number.flatten(1), "amax")
        best_overlap = torch.maximum(best_overlap, overlap.amax(1))
    index = torch.where(num_takers > 1, cheapest.index, taker).clamp(min=0)
    positive = num_takers > 0
    own = iou(boxes, truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)))
    return Assignment(index, positive, torch.zeros_like(positive), torch.where(positive, own, best_overlap))


def dynamic_k_of(overlaps: Tensor) -> Tensor:
    """The number of positives of each object (B,g) from its highest IoUs (B,g,K)."""
    return overlaps.sum(2).floor().clamp(min=1)


def inside_any(priors: Priors, truth: GroundTruth) -> Tensor:
    """Priors strictly inside at least one object, (B,N) bool."""
    found = truth.valid.new_zeros(len(truth.boxes), len(priors.strides))
    for objects in chunks_of_objects(truth, found.shape[1], planes_alive=8):
        pairs = inside(priors, objects)
        found |= pairs.max_by_prior(pairs.from_objects(objects.valid.float())) > 0
    return found
