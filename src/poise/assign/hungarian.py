"""Hungarian matching: one query for every object, at the least total cost (DETR: Carion et al. 2020, eq. 1).

Decoder layers are more batch, so that one call serves all layers and images: one tensor of costs, one copy to the
host, and the only loop is SciPy's solver, matrix by matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from poise.boxes import iou_and_giou, normalize_boxes
from poise.pairwise.chunks import object_chunks
from poise.structures import Assignment, GroundTruth, QueryPredictions


@dataclass(frozen=True)
class Hungarian:
    """Matching by class (as the focal loss sees it), distance of the box and GIoU; ``quality`` is the IoU.

    A query with anything that is not finite is never matched, nor at a cost that is not (overflow). With more objects
    than queries the cheapest are matched and the others go without.

    Args:
        eps: inside the logarithms of the class cost (DAB-DETR: 1e-8).
        groups: the queries fall into so many equal groups, each matched on its own (Group-DETR).
        repeats: every object is matched so many times (the one-to-many half of H-DETR).
    """

    reads: ClassVar[str] = "predictions"
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-12
    groups: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        if min(self.groups, self.repeats) < 1:
            raise ValueError(f"{self}: groups and repeats are at least 1")

    @torch.no_grad()
    def __call__(self, predictions: QueryPredictions, truth: GroundTruth) -> Assignment:
        batch, queries, _ = predictions.logits.shape
        objects = truth.labels.shape[1]
        if queries % self.groups:
            raise ValueError(f"{queries} queries cannot be parted into {self.groups} equal groups")
        cost, overlap = self._costs(predictions, truth)
        cost = cost.view(batch * self.groups, -1, objects)
        place = cheapest_places(cost if self.repeats == 1 else cost.repeat(1, 1, self.repeats))
        index = _object_of_place(place, cost.shape[1], objects).reshape(batch, queries)
        positive = index >= 0
        index = index.clamp(min=0)
        quality = torch.where(positive, overlap.gather(2, index[..., None]).squeeze(2), 0.0).clamp(0, 1)
        return Assignment(index, positive, torch.zeros_like(positive), quality)

    def cost(self, predictions: QueryPredictions, truth: GroundTruth) -> Tensor:
        """(B,N,G); infinite where there is no object, or the prediction or the cost is not finite."""
        return self._costs(predictions, truth)[0]

    def _costs(self, predictions: QueryPredictions, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Cost and IoU of all pairs, both (B,N,G)."""
        batch, queries, _ = predictions.logits.shape
        images = object_chunks(truth.labels.shape[1], queries, batch, truth.boxes.device)  # here chunks of images
        finite = predictions.finite()
        costs = [self._costs_of(predictions, finite, truth, part) for part in images]
        cost, overlap = (torch.cat(parts) for parts in zip(*costs, strict=True))
        return cost, overlap

    def _costs_of(
        self, predictions: QueryPredictions, finite: Tensor, truth: GroundTruth, part: slice
    ) -> tuple[Tensor, Tensor]:
        labels, boxes = truth.labels[part], truth.boxes[part]
        said = (predictions.logits[part], predictions.boxes[part], predictions.normalized_boxes[part])
        logits = said[0].float().gather(2, labels[:, None].expand(-1, said[0].shape[1], -1))
        distance = torch.cdist(said[2].float(), normalize_boxes(boxes, truth.sizes[part]), p=1)
        overlap, fit = iou_and_giou(said[1].float()[:, :, None], boxes[:, None])
        cost = self._class_cost(logits) * self.class_weight + distance * self.box_weight - fit * self.giou_weight
        return torch.where(
            truth.valid[part][:, None] & finite[part][..., None] & cost.isfinite(), cost, torch.inf
        ), overlap

    def _class_cost(self, logits: Tensor) -> Tensor:
        """What the focal loss would lose less if these were positive instead of negative."""
        p = logits.sigmoid()
        negative = -(1 - p + self.eps).log() * (1 - self.alpha) * p**self.gamma
        positive = -(p + self.eps).log() * self.alpha * (1 - p) ** self.gamma
        return positive - negative


@torch.library.custom_op("poise::cheapest_places", mutates_args=())
def cheapest_places(cost: Tensor) -> Tensor:
    """The place of each object in the cheapest matching of every (N,G) matrix of (M,N,G), int64 (M,G); -1 for none.

    Infinite costs are never matched. Waits for the device (one of the listed exceptions); an operator of its own, so
    that a compiled step stays one graph.
    """
    found = torch.full((cost.shape[0], cost.shape[2]), -1, dtype=torch.int64)
    for matrix, places in zip(cost.cpu().numpy(), found.numpy(), strict=True):
        possible = np.isfinite(matrix)
        objects = np.flatnonzero(possible.any(0))
        rows, columns = linear_sum_assignment(_without_infinity(matrix[:, objects]))
        matched = possible[rows, objects[columns]]
        places[objects[columns[matched]]] = rows[matched]
    return found.to(cost.device)


@cheapest_places.register_fake
def _(cost: Tensor) -> Tensor:
    return cost.new_empty(cost.shape[0], cost.shape[2], dtype=torch.int64)


def _without_infinity(cost: np.ndarray) -> np.ndarray:
    """Infinite costs become so large that no matching takes more of them than it must."""
    possible = np.isfinite(cost)
    if possible.all():
        return cost
    exact = cost.astype(np.float64)
    low, high = (exact[possible].min(), exact[possible].max()) if possible.any() else (0.0, 0.0)
    return np.where(possible, exact, high + (high - low + 1) * min(cost.shape))


def _object_of_place(place: Tensor, places: int, objects: int) -> Tensor:
    """From the place of each (repeated) object (M,R*G) to the object of each place (M,N), -1 for none."""
    owner = torch.arange(place.shape[1], device=place.device) % objects
    slot = torch.where(place >= 0, place, places)  # a place too many takes what has none
    index = torch.full((len(place), places + 1), -1, dtype=torch.int64, device=place.device)
    return index.scatter(1, slot, owner.expand_as(slot))[:, :places]
