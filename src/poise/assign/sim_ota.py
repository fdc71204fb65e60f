"""SimOTA: the cheapest places of each object, as many as the sum of its best IoUs (YOLOX: Ge et al. 2021).

What a place costs an object is the binary cross-entropy of its class scores, if it answered to that object, plus the
negative logarithm of the predicted box's IoU. Places outside the object or far from its center cost far more, so that
they are taken only when nothing else is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.dynamic_k import Costs, take_cheapest
from poise.pairwise.chunks import object_chunks
from poise.pairwise.class_cost import ClassCost
from poise.pairwise.listing import finite_of
from poise.pairwise.planes import around_middle, center_planes, depth, scores_of, sides_of, stride_planes
from poise.structures import (
    Assignment,
    GeometricPredictions,
    GroundTruth,
    Predictions,
    Priors,
    QualityPredictions,
)

OUTSIDE = 1e5  # cost of a place that is not both inside its object and near the object's center
FLOOR = -100.0  # of logarithms, as in torch's binary cross-entropy


@dataclass(frozen=True)
class SimOTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    The class score is the geometric mean of class and objectness where the head predicts both. ``shift`` moves the
    places, in strides, for the tests of position alone (YOLOX predicts at cell corners and tests cell centers).
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
        usable = finite_of(predictions, self._anywhere_near(predictions.priors, truth))
        return take_cheapest(predictions, truth, usable, lambda chosen: self._costs(chosen, truth), self.topk)

    def _costs(self, predictions: Predictions, truth: GroundTruth) -> Costs:
        classes = _entropy(predictions)

        def costs(part: slice, overlap: Tensor) -> Tensor:
            within, central = self._position(predictions.priors, truth.boxes[:, part])
            cost = classes(truth.labels[:, part]).sub_((overlap + 1e-7).log_(), alpha=self.iou_weight)
            return cost.add_(torch.minimum(within, central).le_(0), alpha=OUTSIDE)

        return costs

    def _anywhere_near(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """Places inside any object or near any object's center, (B,N) bool."""
        batch, objects = truth.labels.shape
        absent = torch.where(truth.valid[..., None], 0.0, -torch.inf)
        near = torch.zeros(batch, len(priors.strides), dtype=torch.bool, device=truth.boxes.device)
        for part in object_chunks(batch, len(priors.strides), objects, near.device):
            within, central = self._position(priors, truth.boxes[:, part])
            near |= torch.maximum(within, central).add_(absent[:, part]).amax(1) > 0
        return near

    def _position(self, priors: Priors, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """How deep each place lies in each object, and in the square of ``radius`` strides around it, both (B,g,N)."""
        strides, sides = stride_planes(priors), sides_of(boxes)
        x, y = (plane + self.shift * strides for plane in center_planes(priors))
        return depth(x, y, sides), depth(x, y, around_middle(sides, self.radius * strides))


def _entropy(predictions: Predictions) -> ClassCost:
    """Binary cross-entropy of the scores against one class; of the geometric mean of class and objectness, where the
    head predicts both."""
    product = isinstance(predictions, QualityPredictions) and not isinstance(predictions, GeometricPredictions)

    def scores(logits: Tensor) -> Tensor:
        score = scores_of(predictions, logits)
        return score.sqrt_() if product else score

    def hit(logits: Tensor) -> Tensor:
        return scores(logits).log_().clamp_(min=FLOOR).neg_()

    def miss(logits: Tensor) -> Tensor:
        return scores(logits).neg_().log1p_().clamp_(min=FLOOR).neg_()

    return ClassCost(predictions.logits.float(), hit, miss)
