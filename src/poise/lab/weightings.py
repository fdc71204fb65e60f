"""Weights of the priors of one object under DW, GFL and VFL, all computed from the same predictions.

DW's article (Li et al. 2022) argues that two priors of different quality can have the same weights under GFL and VFL,
because their negative weight is a function of the positive one. Both depend on the score s and the IoU of the predicted
box (the article's table 1), where positives are those of ATSS:

    GFL, positive   w_pos = IoU |s - IoU|^2    w_neg = (1 - IoU) |s - IoU|^2    negative  w_neg = s^2
    VFL, positive   w_pos = IoU^2              w_neg = IoU (1 - IoU)            negative  w_neg = 0.75 s^2

The weights here are those of the formulas, without the normalizers and loss weights of a training step.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.assign import ATSS
from poise.assign.dual_weighting import DualWeighting, LinearIoU, overlap_power
from poise.boxes import iou
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.losses import normalizer
from poise.predictions import Predictions
from poise.structures import GroundTruth

DW_FORMS: Mapping[str, tuple[DualWeighting, DualWeightingCriterion]] = {
    "code": (DualWeighting(), DualWeightingCriterion()),
    "article": (
        DualWeighting(
            mu_total=5.0, location=overlap_power, negative_probability=LinearIoU(), bag_bounds_negatives=True
        ),
        DualWeightingCriterion(detached=True),
    ),
}
ANCHOR_SIDE = 8.0  # strides: the side of ATSS's anchor around each point
MAX_CANDIDATES = 24  # of the four anchors


@dataclass(frozen=True)
class Weighting:
    """Weights of -ln s and of -ln (1 - s) at the class of the object, (N,) each."""

    positive: Tensor
    negative: Tensor

    def pairs(self) -> Tensor:
        """Return both weights (N,2)."""
        return torch.stack((self.positive, self.negative), -1)


@dataclass(frozen=True)
class ObjectWeights:
    """The priors of an image with respect to one object, and their weights under each scheme."""

    score: Tensor  # (N,) of the class of the object
    iou: Tensor  # (N,) of the predicted box with the object
    boxes: Tensor  # (N,4) predicted, in pixels of the network's input
    cells: Tensor  # (N,4) squares of one stride, in pixels of the network's input
    strides: Tensor  # (N,)
    positive: Tensor  # (N,) bool, the positives of ATSS
    schemes: dict[str, Weighting]  # by "GFL", "VFL" and "DW"

    def cpu(self) -> ObjectWeights:
        """Return a copy on the CPU."""
        tensors = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        schemes = {n: Weighting(one.positive.cpu(), one.negative.cpu()) for n, one in self.schemes.items()}
        return ObjectWeights(**tensors, schemes=schemes)


@torch.no_grad()
def weigh_object(
    predictions: Predictions, truth: GroundTruth, number: int, dw: DualWeighting, *, criterion: DualWeightingCriterion
) -> ObjectWeights:
    """Compute the weights for the object ``number`` of a batch of one image.

    Args:
        dw, criterion: the form of DW.
    """
    label = int(truth.labels[0, number])
    score = predictions.scores()[0, :, label].double()
    overlap = iou(predictions.boxes[0], truth.boxes[0, number]).nan_to_num().double()
    assignment = ATSS()(_with_anchors(predictions), truth)
    positive = assignment.positive[0] & (assignment.index[0] == number)
    dual = dw(predictions, truth)
    weights = criterion.weights(predictions, dual, truth)
    negative = weights.negative[0, :, label] * normalizer((1 - dual.negative).sum())
    distance = (score - overlap).square()
    zero = torch.zeros_like(score)
    schemes = {
        "GFL": Weighting(
            torch.where(positive, overlap * distance, zero),
            torch.where(positive, (1 - overlap) * distance, score.square()),
        ),
        "VFL": Weighting(
            torch.where(positive, overlap.square(), zero),
            torch.where(positive, overlap * (1 - overlap), 0.75 * score.square()),
        ),
        "DW": Weighting(dual.positive[0, :, number].double(), negative.double()),
    }
    priors = predictions.priors
    return ObjectWeights(score, overlap, predictions.boxes[0], priors.cells[0], priors.strides, positive, schemes)


def _with_anchors(predictions: Predictions) -> Predictions:
    """The predictions at square anchors, where the priors are points."""
    priors = predictions.priors
    if not torch.allclose(priors.boxes, priors.cells):
        return predictions
    half = priors.strides[:, None] * ANCHOR_SIDE / 2
    anchors = torch.cat((priors.centers - half, priors.centers + half), -1)
    return replace(predictions, priors=replace(priors, boxes=anchors))


def four_anchors(weights: ObjectWeights) -> list[int]:
    """Choose four positives A, B, C and D that GFL and VFL distinguish least and DW most (the article's figure 1).

    GFL gives B and D nearly the same weights, and nearly none to A and C, whose score equals their IoU; VFL gives C and
    D nearly the same. Of all choices the one is returned whose differences under GFL and VFL are smallest, minus the
    smallest difference of two of the four under DW; differences are relative to the largest weight of the scheme.

    Raises:
        ValueError: the object has fewer than four positives under ATSS.
    """
    candidates = weights.positive.nonzero().flatten()
    if len(candidates) < 4:
        raise ValueError(
            f"the object has {len(candidates)} positives under ATSS, four are needed: choose another object"
        )
    best = weights.iou[candidates].argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    candidates = candidates[best.sort().values]
    gfl, vfl, dual = (_relative(weights.schemes[name].pairs()[candidates]) for name in ("GFL", "VFL", "DW"))
    count = torch.arange(len(candidates), device=candidates.device)
    choices = torch.cartesian_prod(count, count, count, count)
    choices = choices[(choices.sort(1).values.diff(dim=1) > 0).all(1)]
    a, b, c, d = choices.unbind(1)
    same = (gfl[b] - gfl[d]).norm(dim=1) + (vfl[c] - vfl[d]).norm(dim=1) + gfl[a].norm(dim=1) + gfl[c].norm(dim=1)
    pairs = itertools.combinations((a, b, c, d), 2)
    different = torch.stack([(dual[i] - dual[j]).norm(dim=1) for i, j in pairs]).amin(0)
    return [int(candidates[i]) for i in choices[(same - different).argmin()]]


def _relative(pairs: Tensor) -> Tensor:
    """Divide both weights of all candidates by the largest of them."""
    return pairs / pairs.max().clamp(min=1e-12)
