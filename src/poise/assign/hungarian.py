"""Hungarian matching: one query for every object, at the least total cost (DETR: Carion et al. 2020, eq. 1).

Two costs of later articles are options. Stable-DINO (Liu et al. 2023, arXiv 2304.04742, section 3.4) modulates the
score by the position of the box; Rank-DETR (Pu et al. 2023, arXiv 2310.08854, section 3.3) multiplies it by a high
power of the IoU.

The layers of a decoder are stacked along the batch, so that one call serves all layers and images: one tensor of
costs, one copy to the host, and the only loop is SciPy's solver, matrix by matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from poise.boxes import EPS, iou_and_giou, normalize_boxes
from poise.structures import Assignment, GroundTruth, Progress, QueryPredictions


@dataclass(frozen=True)
class Hungarian:
    """Matching by class (focal loss), L1 distance of the boxes and GIoU; ``quality`` is the IoU.

    A query with predictions that are not finite is never matched, nor at a cost that is not (overflow). With more
    objects than queries the cheapest are matched and the others have no query.

    Args:
        eps: inside the logarithms of the class cost (DAB-DETR: 1e-8).
        groups: number of equal groups of queries, each matched on its own (Group-DETR).
        repeats: how often every object is matched (the one-to-many half of H-DETR).
        position_power: the class cost is that of p s^position_power, with s = (GIoU + 1) / 2 divided by its maximum
            over the queries and objects of the image (position-modulated cost: Stable-DINO has 0.5); 0: of p.
        iou_power: the whole cost is -p IoU^iou_power (high-order matching cost: Rank-DETR has 4); 0: the sum of three.
        iou_power_epoch: epoch from which ``iou_power`` counts (Rank-DETR: 9 of 12); until then the sum of three.
    """

    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-12
    groups: int = 1
    repeats: int = 1
    position_power: float = 0.0
    iou_power: float = 0.0
    iou_power_epoch: int = 0

    def __post_init__(self) -> None:
        if min(self.groups, self.repeats) < 1:
            raise ValueError(f"{self}: groups and repeats are at least 1")
        if min(self.position_power, self.iou_power, self.iou_power_epoch) < 0:
            raise ValueError(f"{self}: position_power, iou_power and iou_power_epoch cannot be negative")
        if self.position_power and self.iou_power:
            raise ValueError(
                f"position_power={self.position_power} excludes iou_power={self.iou_power}, which leaves no class "
                "cost that the position could modulate: leave one out"
            )
        if self.iou_power_epoch and not self.iou_power:
            raise ValueError(f"iou_power_epoch={self.iou_power_epoch} has no effect without iou_power, such as 4.0")

    @torch.no_grad()
    def __call__(self, predictions: QueryPredictions, truth: GroundTruth) -> Assignment:
        (batch, queries, _), objects = predictions.logits.shape, truth.labels.shape[1]
        if queries % self.groups:
            raise ValueError(f"{queries} queries cannot be split into {self.groups} equal groups")
        cost, overlap = self._cost_and_iou(predictions, truth)
        cost = cost.view(batch * self.groups, -1, objects)
        query = cheapest_queries(cost if self.repeats == 1 else cost.repeat(1, 1, self.repeats))
        index = _object_of_query(query, cost.shape[1], objects).reshape(batch, queries)
        positive, index = index >= 0, index.clamp(min=0)
        quality = torch.where(positive, overlap.gather(2, index[..., None]).squeeze(2), 0.0).clamp(0, 1)
        return Assignment(index, positive, torch.zeros_like(positive), quality)

    def cost(self, predictions: QueryPredictions, truth: GroundTruth) -> Tensor:
        """(B,N,G); infinite where there is no object, or the prediction or the cost is not finite."""
        return self._cost_and_iou(predictions, truth)[0]

    def cost_terms(self, predictions: QueryPredictions, truth: GroundTruth) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms whose sum is the cost of all pairs, and the IoU, (B,N,G) each."""
        index = truth.labels[:, None].expand(-1, predictions.logits.shape[1], -1)
        p = predictions.logits.float().gather(2, index).sigmoid()
        overlap, giou = iou_and_giou(predictions.boxes.float()[:, :, None], truth.boxes[:, None])
        if self.iou_power:
            return {"class and IoU cost": -p * overlap**self.iou_power}, overlap
        distance = torch.cdist(predictions.normalized_boxes.float(), normalize_boxes(truth.boxes, truth.sizes), p=1)
        if self.position_power:
            p = p * self._position(giou, predictions, truth) ** self.position_power
        terms = {
            "class cost": self._class_cost(p) * self.class_weight,
            "L1 cost": distance * self.box_weight,
            "GIoU cost": -giou * self.giou_weight,
        }
        return terms, overlap

    def at(self, progress: Progress) -> Hungarian:
        """Return the matching by the sum of three costs before ``iou_power_epoch``, this one from then on."""
        early = progress.epoch < self.iou_power_epoch
        return replace(self, iou_power=0.0, iou_power_epoch=0) if early else self

    def _position(self, giou: Tensor, predictions: QueryPredictions, truth: GroundTruth) -> Tensor:
        """Return (GIoU + 1) / 2, divided by its maximum over the pairs of each image and group, (B,N,G)."""
        possible = truth.valid[:, None] & predictions.finite()[..., None] & giou.isfinite()
        shifted = torch.where(possible, (giou + 1) / 2, 0.0)
        grouped = shifted.view(len(giou) * self.groups, -1, giou.shape[2])
        return (grouped / grouped.amax((1, 2), keepdim=True).clamp(min=EPS)).view_as(giou)

    def _cost_and_iou(self, predictions: QueryPredictions, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Cost and IoU of all pairs, both (B,N,G)."""
        terms, overlap = self.cost_terms(predictions, truth)
        cost = reduce(add, terms.values())
        possible = truth.valid[:, None] & predictions.finite()[..., None] & cost.isfinite()
        return torch.where(possible, cost, torch.inf), overlap

    def _class_cost(self, p: Tensor) -> Tensor:
        """Focal loss of the scores as positives minus that as negatives."""
        negative = -(1 - p + self.eps).log() * (1 - self.alpha) * p**self.gamma
        positive = -(p + self.eps).log() * self.alpha * (1 - p) ** self.gamma
        return positive - negative


@torch.library.custom_op("poise::cheapest_queries", mutates_args=())
def cheapest_queries(cost: Tensor) -> Tensor:
    """Return the query of each object in the cheapest matching of each (N,G) matrix of (M,N,G), int64 (M,G); or -1.

    Infinite costs are never matched. Synchronizes with the device (one of the listed exceptions); an operator of its
    own, so that a compiled step stays one graph.
    """
    from scipy.optimize import linear_sum_assignment  # not at the top: predictions do without SciPy

    found = torch.full((cost.shape[0], cost.shape[2]), -1, dtype=torch.int64)
    for matrix, queries in zip(cost.cpu().numpy(), found.numpy(), strict=True):
        possible = np.isfinite(matrix)
        objects = np.flatnonzero(possible.any(0))
        rows, columns = linear_sum_assignment(_without_infinity(matrix[:, objects]))
        matched = possible[rows, objects[columns]]
        queries[objects[columns[matched]]] = rows[matched]
    return found.to(cost.device)


@cheapest_queries.register_fake
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


def _object_of_query(query: Tensor, queries: int, objects: int) -> Tensor:
    """From the query of each (repeated) object (M,R*G) to the object of each query (M,N), -1 for none."""
    number = torch.arange(query.shape[1], device=query.device) % objects
    slot = torch.where(query >= 0, query, queries)  # an extra slot for objects without a query
    index = torch.full((len(query), queries + 1), -1, dtype=torch.int64, device=query.device)
    return index.scatter(1, slot, number.expand_as(slot))[:, :queries]
