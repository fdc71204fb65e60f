"""SimOTA: the cheapest priors of each object, as many as the sum of its best IoUs (YOLOX: Ge et al. 2021, section 2.1).

The cost of a prior is the binary cross-entropy of its class scores for the class of the object, plus the negative
logarithm of the predicted box's IoU. Priors outside the object or far from its center cost far more, so that they are
taken only when nothing else is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from poise.assign.dynamic_k import ClassCost, PairCosts, take_cheapest
from poise.boxes import distance_inside, distance_inside_center, iou, with_least_sides
from poise.pairwise import (
    CompactPriors,
    Objects,
    Pairs,
    all_pairs,
    chunks_of_objects,
    only_finite,
)
from poise.structures import Assignment, GroundTruth, Predictions, Priors

OUTSIDE = 1e5  # cost of a prior that is not both inside its object and near the object's center
LEAST_LOG = -100.0  # as in PyTorch's binary cross-entropy


@dataclass(frozen=True)
class SimOTA:
    """Assignment by the cost of predictions; ``quality`` is the IoU of the predicted box.

    The class score is the geometric mean of class and objectness where the head predicts both. ``shift`` moves the
    priors, in strides, for the tests of position only (YOLOX predicts at cell corners and tests cell centers).
    ``floor`` px: in the test of "inside", shorter sides grow to it (STAL of YOLO26: 16).
    """

    topk: int = 10
    radius: float = 2.5  # strides
    iou_weight: float = 3.0
    shift: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.topk < 1 or self.radius <= 0 or min(self.iou_weight, self.floor) < 0:
            raise ValueError(f"{self}: topk is at least 1, radius positive, iou_weight and floor not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = CompactPriors.of(only_finite(predictions, self.near_any(predictions.priors, truth)))
        candidates = priors.take(predictions).float()
        costs = self._costs(candidates, truth, priors.mask)
        return priors.scatter_back_assignment(take_cheapest(costs, candidates.boxes, truth, self.topk))

    def _costs(self, predictions: Predictions, truth: GroundTruth, usable: Tensor) -> Iterator[PairCosts]:
        class_cost = self.class_cost(predictions)
        for objects in chunks_of_objects(truth, usable.shape[1], dense=True):
            pairs = all_pairs(objects.valid, usable)
            terms, overlap = self.cost_terms(predictions, objects, pairs, class_cost)
            yield objects, pairs, reduce(add, terms.values()), overlap

    def class_cost(self, predictions: Predictions) -> ClassCost:
        """Return the cost of the classes as background: the binary cross-entropy with a target of 0."""
        return ClassCost(_class_scores(predictions), absent=lambda p: -torch.log1p(-p).clamp(min=LEAST_LOG))

    def cost_terms(
        self, predictions: Predictions, objects: Objects, pairs: Pairs, class_cost: ClassCost
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms whose sum is the cost of pairs, and the IoU of the predicted box."""
        overlap = iou(pairs.from_priors(predictions.boxes), pairs.from_objects(objects.boxes))
        others, score = class_cost(pairs, objects.labels)
        in_box, in_center = self.distances(predictions.priors, objects, pairs)
        terms = {
            "class cost": others - score.log().clamp(min=LEAST_LOG),
            "IoU cost": -self.iou_weight * (overlap + 1e-7).log(),
            "cost outside": OUTSIDE * (torch.minimum(in_box, in_center) <= 0),
        }
        return terms, overlap

    def near_any(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """Priors inside any object or near any object's center, (B,N) bool."""
        everywhere = truth.valid.new_ones(len(truth.boxes), len(priors.strides))
        near = torch.zeros_like(everywhere)
        for objects in chunks_of_objects(truth, near.shape[1], dense=True):
            pairs = all_pairs(objects.valid, everywhere)
            near |= pairs.max_by_prior(torch.maximum(*self.distances(priors, objects, pairs))) > 0
        return near

    def distances(self, priors: Priors, objects: Objects, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """How far each prior lies inside each object, and inside the square of ``radius`` strides at its center."""
        strides = priors.strides.view(-1, priors.strides.shape[-1])
        points = pairs.from_priors(priors.centers.float() + self.shift * strides[..., None])
        boxes = pairs.from_objects(objects.boxes)
        square = distance_inside_center(points, boxes, pairs.from_priors(self.radius * strides))
        return distance_inside(points, with_least_sides(boxes, self.floor)), square


def _class_scores(predictions: Predictions) -> Tensor:
    """Scores (B,N,C); the geometric mean of class and objectness where the head predicts both."""
    scores = predictions.scores()
    return scores.sqrt() if predictions.score_is_product else scores
