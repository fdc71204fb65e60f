"""SimOTA: the cheapest places of each object, as many as the sum of its best IoUs (YOLOX: Ge et al. 2021).

What a place costs an object is the binary cross-entropy of its class scores, if it answered to that object, plus the
negative logarithm of the predicted box's IoU. Places outside the object or far from its centre cost far more, so that
they are taken only when nothing else is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.dynamic_k import finite_places, take_cheapest
from poise.assign.protocol import object_chunks
from poise.structures import Assignment, GroundTruth, Predictions, Priors, QualityPredictions

OUTSIDE = 1e5  # cost of a place that is not both inside its object and near the object's centre
FLOOR = -100.0  # of logarithms, as in torch's binary cross-entropy


@dataclass(frozen=True)
class SimOTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    The class score is the geometric mean of class and objectness where the head predicts both. ``shift`` moves the
    places, in strides, for the tests of position alone (YOLOX predicts at cell corners and tests cell centres).
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 10
    radius: float = 2.5  # strides
    iou_weight: float = 3.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.topk < 1 or self.radius <= 0 or self.iou_weight < 0:
            raise ValueError(f"{self}: topk is at least 1, radius positive, iou_weight not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        usable = self._anywhere_near(predictions.priors, truth) & finite_places(predictions)
        scores = predictions.scores().float()
        classes = _ClassCost(scores.sqrt() if isinstance(predictions, QualityPredictions) else scores)

        def costs(part: slice, overlap: Tensor) -> Tensor:
            inside, central = self._position(predictions.priors, truth.boxes[:, part])
            cost = classes(truth.labels[:, part]) - (overlap + 1e-7).log() * self.iou_weight
            return cost + torch.where(inside & central, 0.0, OUTSIDE)

        return take_cheapest(predictions, truth, usable, costs, self.topk)

    def _anywhere_near(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """Places inside any object or near any object's centre, (B,N) bool."""
        batch, objects = truth.labels.shape
        near = torch.zeros(batch, len(priors.strides), dtype=torch.bool, device=truth.boxes.device)
        for part in object_chunks(batch, len(priors.strides), objects):
            inside, central = self._position(priors, truth.boxes[:, part])
            near = near | ((inside | central) & truth.valid[:, None, part]).any(2)
        return near

    def _position(self, priors: Priors, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each place lies strictly inside each object, and within ``radius`` of its centre, both (B,N,g)."""
        centers = priors.centers.float() + self.shift * priors.strides[:, None]
        x, y = (plane[..., None] for plane in centers.unbind(-1))
        x1, y1, x2, y2 = (plane[:, None] for plane in boxes.unbind(-1))
        depth = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))
        reach = self.radius * priors.strides[:, None]
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        margin = torch.minimum(
            torch.minimum(x - (cx - reach), (cx + reach) - x), torch.minimum(y - (cy - reach), (cy + reach) - y)
        )
        return depth > 0, margin > 0


class _ClassCost:
    """Binary cross-entropy of every place's scores against one class, summed over classes.

    Only the object's own class differs from the cost of background, so that one is exchanged and no (B,N,G,C) is made.
    """

    def __init__(self, scores: Tensor) -> None:
        self.hit = -scores.log().clamp(min=FLOOR)
        self.miss = -torch.log1p(-scores).clamp(min=FLOOR)
        self.total = self.miss.sum(2, keepdim=True, dtype=torch.float64)

    def __call__(self, labels: Tensor) -> Tensor:
        """Costs (B,N,g) for objects of classes (B,g)."""
        column = labels[:, None].expand(-1, self.hit.shape[1], -1)
        return (self.total - self.miss.gather(2, column) + self.hit.gather(2, column)).float()
