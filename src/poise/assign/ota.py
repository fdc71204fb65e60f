"""OTA: assignment as the cheapest transport of objects' supply to places (Ge et al. 2021).

Every object supplies as many positives as the sum of its best IoUs, the background supplies the rest, every place
takes one. What it costs is the loss that the place would have; Sinkhorn's iterations find the cheapest plan for all
objects together, and a place answers to whichever sends it the greatest share of what it sends anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.assign.sinkhorn import Lane, Transport
from poise.boxes import iou
from poise.pairwise.chunks import object_chunks
from poise.pairwise.class_cost import ClassCost, focal_of_absent
from poise.pairwise.overlaps import best_overlap
from poise.pairwise.pairs import Pairs, pairs_inside
from poise.pairwise.planes import around_middle, depth, largest_values
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for
LEAST_IOU = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class OTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    Only places inside an object and near its center can be taken. An object that has none takes from all places. (The
    original adds 1e6 to the cost of the others; in float32 that leaves sixteenths of the rest. Here the constant is
    left out, which changes nothing else.) Ties go to the lowest index of the object, the background last.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 20  # best IoUs that are summed
    radius: float = 2.5  # strides
    iou_weight: float = 1.5
    alpha: float = 0.25  # of the focal loss
    gamma: float = 2.0
    temperature: float = 0.1  # the less, the harder the plan and the slower it is found
    iterations: int = 50
    inside: float = 0.01  # px: how far inside the object a positive's center must be

    def __post_init__(self) -> None:
        if min(self.topk, self.iterations) < 1 or min(self.radius, self.temperature) <= 0:
            raise ValueError(f"{self}: topk and iterations are at least 1, radius and temperature positive")
        if self.iou_weight < 0 or self.gamma < 0 or not 0 <= self.alpha <= 1:
            raise ValueError(f"{self}: iou_weight and gamma are not negative, alpha lies in [0,1]")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        usable = predictions.finite()
        boxes = torch.where(usable[..., None], predictions.boxes.float(), 0.0)
        classes = self._class_cost(torch.where(usable[..., None], predictions.logits.float(), 0.0))
        batch, places = usable.shape
        lanes, supplies = [], []
        for part in object_chunks(batch * TEMPORARIES, places, truth.labels.shape[1]):
            objects, valid = truth.boxes[:, part], truth.valid[:, part]
            near = self._near(predictions.priors, objects, valid)
            near = near.only(near.of_places(usable))
            overlap = iou(near.of_places(boxes), near.of_objects(objects))
            best = largest_values(near.dense(overlap), min(self.topk, places))
            supplies.append(best.sum(2).floor().clamp(min=1) * (valid & usable.any(1, keepdim=True)))
            pairs = near.or_all(usable[:, None] & valid[..., None])
            overlap = iou(pairs.of_places(boxes), pairs.of_objects(objects)).clamp(min=LEAST_IOU)
            cost = classes.of_pairs(truth.labels[:, part], pairs) - overlap.log() * self.iou_weight
            lanes.append(Lane(part, pairs, cost / self.temperature))
        supply = torch.cat(supplies, 1)
        rest = (places - supply.sum(1)).clamp(min=0)
        plan = Transport(lanes, classes.background / self.temperature, supply, rest)
        index, positive = plan.winners(plan.prices(self.iterations))
        own = iou(boxes, truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)))
        quality = torch.where(positive, own, best_overlap(boxes, truth))
        return Assignment(index, positive, torch.zeros_like(positive), quality)

    def _class_cost(self, logits: Tensor) -> ClassCost:
        """The focal loss of (B,N,C) logits against one class."""

        def hit(z: Tensor) -> Tensor:
            return softplus(z).mul_(-self.gamma).exp_().mul_(softplus(-z)).mul_(self.alpha)

        def miss(z: Tensor) -> Tensor:
            return focal_of_absent(z, self.alpha, self.gamma)

        return ClassCost(logits, hit, miss)

    def _near(self, priors: Priors, objects: Tensor, valid: Tensor) -> Pairs:
        """Pairs of places inside objects (B,g,4) and near their centers."""
        pairs = pairs_inside(priors.centers, objects, valid)
        x, y = (pairs.of_places(z) for z in priors.centers.float().unbind(-1))
        sides = [pairs.of_objects(side) for side in objects.unbind(-1)]
        square = around_middle(sides, self.radius * pairs.of_places(priors.strides[None]))
        return pairs.only((depth(x, y, sides) > self.inside) & (depth(x, y, square) > 0))
