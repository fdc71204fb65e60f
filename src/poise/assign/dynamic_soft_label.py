"""Dynamic soft label assigner, DSLA (NanoDet-Plus; RTMDet: Lyu et al. 2022, section 3.4).

The cost of a prior is the quality focal loss of its class scores with the IoU of its predicted box as the soft label,
plus the negative logarithm of that IoU and, if wanted, a distance cost. Each object takes its cheapest priors, as many
as the sum of its best IoUs (dynamic k).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.assign.dynamic_k import ClassCost, PairCosts, inside_any, take_cheapest
from poise.boxes import iou
from poise.pairwise import CompactPriors, Objects, Pairs, all_pairs, chunks_of_objects, only_finite
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class DynamicSoftLabel:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box, the soft label.

    Every prior strictly inside *any* object can be taken, so that an object too small to contain a prior still gets
    one. The cost of a pair is that of NanoDet-Plus's article, ``C_cls + lambda * C_reg + C_dis`` with
    ``C_reg = -ln(IoU)`` and ``C_dis = alpha ** (distance - beta)``, the distance of the prior from the object's center
    in strides.
    """

    topk: int = 13
    iou_weight: float = 3.0  # lambda of the article, ``iou_factor`` of the original
    distance_alpha: float = 10.0  # of the distance cost
    distance_beta: float | None = None  # strides; None: no distance cost (NanoDet-Plus); RTMDet: 3

    def __post_init__(self) -> None:
        if self.topk < 1 or self.iou_weight < 0:
            raise ValueError(f"{self}: topk is at least 1, iou_weight not negative")
        if self.distance_alpha <= 1:
            raise ValueError(f"{self}: distance_alpha must exceed 1, or the cost would not grow with the distance")
        if self.distance_beta is None and self.distance_alpha != DynamicSoftLabel.distance_alpha:
            raise ValueError(f"{self}: distance_alpha has no effect without distance_beta")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = CompactPriors.of(only_finite(predictions, inside_any(predictions.priors, truth)))
        candidates = priors.take(predictions).float()
        costs = self._costs(candidates, truth, priors.mask)
        return priors.scatter_back_assignment(take_cheapest(costs, candidates.boxes, truth, self.topk))

    def _costs(self, predictions: Predictions, truth: GroundTruth, usable: Tensor) -> Iterator[PairCosts]:
        class_cost = self.class_cost(predictions)
        for objects in chunks_of_objects(truth, usable.shape[1], dense=True):
            pairs = all_pairs(objects.valid, usable)
            terms, label = self.cost_terms(predictions, objects, pairs, class_cost)
            yield objects, pairs, reduce(add, terms.values()), label

    def class_cost(self, predictions: Predictions) -> ClassCost:
        """Return the cost of the classes as background: the quality focal loss with a soft label of 0."""
        return ClassCost(predictions.logits, absent=lambda z: z.sigmoid().square() * softplus(z))

    def cost_terms(
        self, predictions: Predictions, objects: Objects, pairs: Pairs, class_cost: ClassCost
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms whose sum is the cost of pairs, and the soft label, the IoU of the predicted box."""
        label = iou(pairs.from_priors(predictions.boxes), pairs.from_objects(objects.boxes))
        others, z = class_cost(pairs, objects.labels)
        quality_focal = others + (label - z.sigmoid()).square() * (softplus(z) - z * label)
        terms = {"class cost": quality_focal, "IoU cost": -self.iou_weight * (label + 1e-7).log()}
        if self.distance_beta is not None:
            distance = _center_distance(predictions.priors, objects, pairs)
            terms["distance cost"] = torch.exp2(math.log2(self.distance_alpha) * (distance - self.distance_beta))
        return terms, label


def _center_distance(priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
    """Distance of each prior from each object's center in strides."""
    x, y = pairs.from_priors(priors.centers.float()).unbind(-1)
    x1, y1, x2, y2 = pairs.from_objects(objects.boxes).unbind(-1)
    strides = pairs.from_priors(priors.strides.view(-1, priors.strides.shape[-1]))
    return ((x - (x1 + x2) / 2).square() + (y - (y1 + y2) / 2).square()).sqrt() / strides
