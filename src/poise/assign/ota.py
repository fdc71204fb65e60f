"""OTA: assignment as the optimal transport of objects' positive labels to priors (Ge et al. 2021, algorithm 1).

Every object supplies as many positives as the sum of its best IoUs, the background supplies the rest, every prior
demands one. The unit cost is the loss that the prior would have. Sinkhorn's iteration finds the cheapest plan for all
objects together; a prior is assigned to the object that sends it the greatest share of what it sends anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from poise.assign.dynamic_k import ClassCost, dynamic_k_of, focal_of_absent, focal_of_present
from poise.assign.sinkhorn import Routes, Transport
from poise.boxes import distance_inside, distance_inside_center, iou
from poise.pairwise import (
    Objects,
    Pairs,
    best_iou,
    chunks_of_objects,
    inside,
)
from poise.structures import Assignment, GroundTruth, Predictions, Priors

LEAST_IOU = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class OTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    Only priors inside an object and near its center can be taken. An object without such priors takes from all. (The
    original adds 1e6 to the cost of the others, which in float32 rounds the rest to sixteenths. Here the constant is
    left out, which changes nothing else.) Ties go to the lowest index of the object, the background last.
    """

    topk: int = 20  # best IoUs that are summed
    radius: float = 2.5  # strides
    iou_weight: float = 1.5
    alpha: float = 0.25  # of the focal loss
    gamma: float = 2.0
    temperature: float = 0.1  # the lower, the harder the plan and the slower the convergence
    iterations: int = 50
    inside: float = 0.01  # px: least distance of a positive's center from the sides of the object

    def __post_init__(self) -> None:
        if min(self.topk, self.iterations) < 1 or min(self.radius, self.temperature) <= 0:
            raise ValueError(f"{self}: topk and iterations are at least 1, radius and temperature positive")
        if self.iou_weight < 0 or self.gamma < 0 or not 0 <= self.alpha <= 1:
            raise ValueError(f"{self}: iou_weight and gamma are not negative, alpha lies in [0,1]")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        usable = predictions.finite()
        boxes = torch.where(usable[..., None], predictions.boxes.float(), 0.0)
        logits = torch.where(usable[..., None], predictions.logits.float(), 0.0)
        class_cost = self.class_cost(logits)
        priors, supplies, routes = usable.shape[1], [], []
        for objects in chunks_of_objects(truth, priors, planes_alive=8):
            pairs = self.candidates(predictions.priors, objects)
            pairs = pairs.where(pairs.from_priors(usable))
            overlap = iou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes))
            dynamic_k = dynamic_k_of(pairs.topk_by_object(overlap, self.topk)[0])
            supplies.append(dynamic_k * (objects.valid & usable.any(1, keepdim=True)))
            pairs = pairs.or_if_empty(usable[:, None] & objects.valid[..., None])
            overlap = iou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes)).clamp(min=LEAST_IOU)
            cost = reduce(add, self.cost_terms(objects, pairs, class_cost, overlap).values())
            routes.append(Routes(objects, pairs, cost / self.temperature))
        supply = torch.cat(supplies, 1)
        background = (priors - supply.sum(1)).clamp(min=0)  # eq. 5
        plan = Transport(routes, class_cost.background / self.temperature, supply, background)
        best = plan.winners(plan.prices(self.iterations))
        own = iou(boxes, truth.boxes.gather(1, best.index[..., None].expand(-1, -1, 4)))
        quality = torch.where(best.found, own, best_iou(boxes, truth))
        return Assignment(best.index, best.found, torch.zeros_like(best.found), quality)

    def class_cost(self, logits: Tensor) -> ClassCost:
        """Return the cost of the classes as background: the focal loss with a target of 0."""
        return ClassCost(logits, absent=lambda z: focal_of_absent(z, self.alpha, self.gamma))

    def cost_terms(self, objects: Objects, pairs: Pairs, class_cost: ClassCost, overlap: Tensor) -> dict[str, Tensor]:
        """Return the terms whose sum is the cost of pairs with IoU ``overlap`` > 0 (eq. 2)."""
        others, z = class_cost(pairs, objects.labels)
        class_term = others + focal_of_present(z, self.alpha, self.gamma)
        return {"class cost": class_term, "IoU cost": -self.iou_weight * overlap.log()}

    def candidates(self, priors: Priors, objects: Objects) -> Pairs:
        """Pairs of objects and the priors inside them and near their centers."""
        pairs = inside(priors, objects)
        points, boxes = pairs.from_priors(priors.centers.float()), pairs.from_objects(objects.boxes)
        square = distance_inside_center(points, boxes, self.radius * pairs.from_priors(priors.strides[None]))
        return pairs.where((distance_inside(points, boxes) > self.inside) & (square > 0))
