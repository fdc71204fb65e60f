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

from poise.assign.class_cost import ClassCost
from poise.assign.positions import depths
from poise.assign.protocol import aligned_chunks
from poise.assign.sinkhorn import Transport
from poise.boxes import iou
from poise.structures import Assignment, GroundTruth, Predictions

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for
LEAST_IOU = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class OTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    Only places inside an object and near its centre can be taken. An object that has none takes from all places. (The
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
    inside: float = 0.01  # px: how far inside the object a positive's centre must be

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
        slices = aligned_chunks(batch * TEMPORARIES, places, truth.labels.shape[1])
        costs, supplies, nearest = [], [], torch.zeros_like(boxes[..., 0])
        for part in slices:
            objects = truth.boxes[:, part]
            overlap = iou(boxes[:, None], objects[:, :, None])
            allowed = usable[:, None] & truth.valid[:, part, None]
            near = allowed & self._near(predictions, objects)
            best = torch.where(near, overlap, 0.0).topk(min(self.topk, places), 2).values
            supplies.append(best.sum(2).floor().clamp(min=1) * allowed.any(2))
            allowed = torch.where(near.any(2, keepdim=True), near, allowed)
            cost = classes(truth.labels[:, part]) - overlap.clamp(min=LEAST_IOU).log() * self.iou_weight
            costs.append(torch.where(allowed, cost / self.temperature, torch.inf))
            nearest = torch.maximum(nearest, torch.where(truth.valid[:, part, None], overlap, 0.0).amax(1))
        supply = torch.cat(supplies, 1)
        rest = (places - supply.sum(1)).clamp(min=0)
        plan = Transport(torch.cat(costs, 1), classes.background / self.temperature, supply, rest, slices)
        index, positive = plan.winners(plan.prices(self.iterations))
        own = iou(boxes, truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)))
        return Assignment(index, positive, torch.zeros_like(positive), torch.where(positive, own, nearest))

    def _class_cost(self, logits: Tensor) -> ClassCost:
        """The focal loss of (B,N,C) logits against one class."""

        def hit(z: Tensor) -> Tensor:
            return softplus(z).mul_(-self.gamma).exp_().mul_(softplus(-z)).mul_(self.alpha)

        def miss(z: Tensor) -> Tensor:
            return softplus(-z).mul_(-self.gamma).exp_().mul_(softplus(z)).mul_(1 - self.alpha)

        return ClassCost(logits, hit, miss)

    def _near(self, predictions: Predictions, objects: Tensor) -> Tensor:
        """Places inside each object (B,g,4) and near its centre, (B,g,N) bool."""
        priors = predictions.priors
        centers = priors.centers.float()[:, None]
        depth, margin = depths(centers, objects[:, :, None], self.radius * priors.strides)
        return (depth > self.inside) & (margin > 0)
