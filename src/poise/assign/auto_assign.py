"""AutoAssign: priors weigh themselves (Zhu et al. 2020).

A prior inside an object counts by the confidence of its prediction and by a learned center prior of the object's
class; the better its box fits, the less it is a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from poise.assign.center_priors import CenterPriorFunction, GaussianCenterPrior
from poise.assign.likelihood import CenteredBags, negative_log
from poise.boxes import giou
from poise.pairwise import TINY, Objects, best_iou, chunks_of_objects, inside
from poise.structures import GroundTruth, Predictions


@dataclass(frozen=True)
class AutoAssign:
    """Soft assignment from predictions; ``center_prior`` is mostly a head's ``CenterPrior``.

    Where objects of one class overlap, the negative weight is that of the object with the highest index. Priors with
    predictions that are not finite have no positive weight.
    """

    center_prior: CenterPriorFunction = GaussianCenterPrior(1.0)
    beta: float = 5.0  # weight of the box in the likelihood of a prior
    sharpness: float = 3.0  # of the confidence weight, exp(sharpness * likelihood)
    detached: bool = False  # whether the weights have no gradient (DW's article, section 4.1)
    geometric: bool = False  # a geometric mean: the weights are those of the losses -ln p, not of the likelihoods p

    def __post_init__(self) -> None:
        if min(self.beta, self.sharpness) < 0:
            raise ValueError(f"AutoAssign(beta={self.beta}, sharpness={self.sharpness}): none is negative")

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> CenteredBags:
        priors, boxes, finite = predictions.priors, predictions.boxes.float(), predictions.finite()

        def positive(objects: Objects) -> tuple[Tensor, Tensor, Tensor]:
            pairs = inside(priors, objects)
            pairs = pairs.where(pairs.from_priors(finite))
            prior = self.center_prior(priors, objects, pairs)
            fit = giou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes))
            likelihood = pairs.class_scores(predictions, objects.labels) * (-self.beta * (1 - fit)).exp()  # eq. 4
            likelihood = torch.where(likelihood.isfinite(), likelihood, 0.0)
            weight = (self.sharpness * likelihood).exp() * prior * (likelihood > 0)  # C(P) G(d), eq. 5 and 6
            weight = weight / pairs.from_objects(pairs.sum_by_object(weight).clamp(min=TINY))  # eq. 7
            weight = weight.detach() if self.detached else weight
            if self.geometric:
                mean = (-pairs.sum_by_object(weight * negative_log(likelihood))).exp()
                mean = mean * (pairs.max_by_object(weight.detach()) > 0)  # 0 for an object without a candidate
            else:
                mean = pairs.sum_by_object(weight * likelihood)
            return pairs.to_dense(weight.detach()), mean, pairs.sum_by_object(prior)

        chunks = chunks_of_objects(truth, boxes.shape[1], planes_alive=8)
        if len(chunks) > 1 and torch.is_grad_enabled():  # computed again in the backward pass instead of stored
            parts = [checkpoint(positive, objects, use_reentrant=False) for objects in chunks]
        else:
            parts = [positive(objects) for objects in chunks]
        weight, likelihood, mass = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        negative = self._negative(predictions, truth, chunks)
        return CenteredBags(weight.transpose(1, 2), negative.transpose(1, 2), likelihood, mass)

    @torch.no_grad()
    def _negative(self, predictions: Predictions, truth: GroundTruth, chunks: list[Objects]) -> Tensor:
        """(B,C,N): 1 outside the objects of a class, inside lower with the IoU of the box with any object (eq. 8)."""
        value = 1 / (1 - best_iou(predictions.boxes, truth)).clamp(min=TINY)
        negative = value.new_ones(len(value), predictions.logits.shape[2], value.shape[1])
        for objects in chunks:
            pairs = inside(predictions.priors, objects)
            own = pairs.from_priors(value)
            normalized = pairs.normalize_by_object(own)
            pairs.scatter_by_class(1 - normalized, objects.labels, negative, reduce="last")
        return negative
