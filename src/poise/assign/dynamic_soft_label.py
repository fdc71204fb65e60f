"""Dynamic soft label assignment (NanoDet-Plus, RTMDet: Lyu et al. 2022, section 3.4).

What a place costs an object is how badly its class scores fit the soft label, the IoU of the predicted box, plus that
IoU's negative logarithm. Each object takes the places that are cheapest for it, as many as the sum of its best IoUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.assign.dynamic_k import take_cheapest
from poise.assign.protocol import object_chunks
from poise.boxes import depth_inside
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class DynamicSoftLabel:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box, the soft label.

    A place can be taken when it lies strictly inside *any* object, not necessarily inside its own: so an object too
    small to hold a place still gets one.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 13
    iou_weight: float = 3.0
    center_radius: float | None = None  # strides; RTMDet adds 10^(distance from the centre - 3), NanoDet-Plus does not

    def __post_init__(self) -> None:
        if self.topk < 1 or self.iou_weight < 0:
            raise ValueError(f"{self}: topk is at least 1, iou_weight not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        usable = inside_any(predictions.priors, truth) & predictions.finite()
        classes = _SoftLabelCost(predictions.logits.float())

        def costs(part: slice, overlap: Tensor) -> Tensor:
            cost = classes(truth.labels[:, part], overlap) - (overlap + 1e-7).log() * self.iou_weight
            if self.center_radius is None:
                return cost
            return cost + torch.pow(
                10.0, _center_distance(predictions.priors, truth.boxes[:, part]) - self.center_radius
            )

        return take_cheapest(predictions, truth, usable, costs, self.topk)


def inside_any(priors: Priors, truth: GroundTruth) -> Tensor:
    """Places strictly inside at least one object, (B,N) bool."""
    centers = priors.centers.float()
    inside = torch.zeros(len(truth.boxes), centers.shape[1], dtype=torch.bool, device=centers.device)
    for part in object_chunks(len(inside), inside.shape[1], truth.boxes.shape[1]):
        depth = depth_inside(centers, truth.boxes[:, part])
        inside = inside | ((depth > 0) & truth.valid[:, None, part]).any(2)
    return inside


class _SoftLabelCost:
    """The quality focal loss of every place as if it answered to an object, summed over classes.

    Only the object's own class differs from the loss of background, so that one is exchanged and no (B,N,G,C) is made.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.background = logits.sigmoid().square() * softplus(logits)
        self.total = self.background.sum(2, keepdim=True)

    def __call__(self, labels: Tensor, overlap: Tensor) -> Tensor:
        """Costs (B,N,g) for objects of classes (B,g) and soft labels (B,N,g)."""
        column = labels[:, None].expand(-1, self.logits.shape[1], -1)
        logit = self.logits.gather(2, column)
        soft = (overlap - logit.sigmoid()).square() * (softplus(logit) - logit * overlap)
        return self.total - self.background.gather(2, column) + soft


def _center_distance(priors: Priors, boxes: Tensor) -> Tensor:
    """Distance (B,N,g) of each place from each object's centre, in strides."""
    target = (boxes[..., :2] + boxes[..., 2:]) / 2
    offset = priors.centers.float()[:, :, None] - target[:, None]
    return offset.square().sum(3).sqrt() / priors.strides[:, None]
