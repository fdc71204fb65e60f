"""Dynamic soft label assignment (NanoDet-Plus, RTMDet: Lyu et al. 2022, section 3.4).

What a place costs an object is how badly its class scores fit the soft label, the IoU of the predicted box, plus that
IoU's negative logarithm. Each object takes the places that are cheapest for it, as many as the sum of its best IoUs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.assign.dynamic_k import Costs, take_cheapest
from poise.pairwise.chunks import object_chunks
from poise.pairwise.listing import finite_of
from poise.pairwise.pairs import pairs_inside
from poise.pairwise.planes import center_planes, rows, sides_of, stride_planes
from poise.structures import Assignment, GroundTruth, Predictions, Priors

TEMPORARIES = 8  # planes of pairs alive at once where places inside are looked for, against what streaming allows for


@dataclass(frozen=True)
class DynamicSoftLabel:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box, the soft label.

    A place can be taken when it lies strictly inside *any* object, not necessarily inside its own: so an object too
    small to hold a place still gets one.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 13
    iou_weight: float = 3.0
    center_radius: float | None = None  # strides; RTMDet adds 10^(distance from the center - 3), NanoDet-Plus does not

    def __post_init__(self) -> None:
        if self.topk < 1 or self.iou_weight < 0:
            raise ValueError(f"{self}: topk is at least 1, iou_weight not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        usable = finite_of(predictions, inside_any(predictions.priors, truth))
        return take_cheapest(predictions, truth, usable, lambda chosen: self._costs(chosen, truth), self.topk)

    def _costs(self, predictions: Predictions, truth: GroundTruth) -> Costs:
        classes = _SoftLabelCost(predictions.logits.float())

        def costs(part: slice, overlap: Tensor) -> Tensor:
            cost = classes(truth.labels[:, part], overlap).sub_((overlap + 1e-7).log_(), alpha=self.iou_weight)
            if self.center_radius is None:
                return cost
            beyond = _center_distance(predictions.priors, truth.boxes[:, part]).sub_(self.center_radius)
            return cost.add_(beyond.mul_(math.log2(10)).exp2_())

        return costs


def inside_any(priors: Priors, truth: GroundTruth) -> Tensor:
    """Places strictly inside at least one object, (B,N) bool."""
    found = torch.zeros(len(truth.boxes), len(priors.strides), dtype=torch.bool, device=truth.boxes.device)
    for part in object_chunks(len(found) * TEMPORARIES, found.shape[1], truth.boxes.shape[1]):
        pairs = pairs_inside(priors.centers, truth.boxes[:, part], truth.valid[:, part])
        found |= pairs.place_most(pairs.of_objects(truth.valid[:, part].float())) > 0
    return found


class _SoftLabelCost:
    """The quality focal loss of every place as if it answered to an object, summed over classes.

    Only the object's own class differs from the loss of background, so that one is exchanged and no (B,N,G,C) is made.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.transpose(1, 2).contiguous()
        batch, classes, places = self.logits.shape
        self.total = logits.new_zeros(batch, 1, places)
        for part in object_chunks(batch, places, classes, logits.device):
            self.total += _background(self.logits[:, part]).sum(1, keepdim=True)

    def __call__(self, labels: Tensor, overlap: Tensor) -> Tensor:
        """Costs (B,g,N) for objects of classes (B,g) and soft labels (B,g,N)."""
        logit = rows(self.logits, labels)
        score, entropy = logit.sigmoid(), softplus(logit)
        soft = (overlap - score).square_().mul_(entropy - logit * overlap)
        return soft.sub_(score.square_().mul_(entropy)).add_(self.total)


def _background(logits: Tensor) -> Tensor:
    """The loss of logits whose soft label is 0."""
    return logits.sigmoid().square_().mul_(softplus(logits))


def _center_distance(priors: Priors, boxes: Tensor) -> Tensor:
    """Distance (B,g,N) of each place from each object's center, in strides."""
    x, y = center_planes(priors)
    x1, y1, x2, y2 = sides_of(boxes)
    x = x - (x1 + x2) / 2
    return (y - (y1 + y2) / 2).square_().addcmul_(x, x).sqrt_().div_(stride_planes(priors))
