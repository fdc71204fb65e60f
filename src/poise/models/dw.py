"""Dual weighting, DW (Li et al. 2022): each prior has a positive and a negative weight.

Points predict classes, objectness and boxes as in FCOS. For each object, the points that its center prior covers form
the candidate bag. The positive weight of a candidate increases with its consistency, the agreement of its class score
and the IoU of its box. Its negative weight is the product of the probability that it is a negative, which decreases
with the IoU, and of its importance as a negative, its score. Box refinement predicts each box twice: every side of the
coarse box is read again at a learned boundary point. The defaults are those of the authors' code, ``form="article"``
is the article in one word; the options are the rows of the article's tables (docs/dual_weighting.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from poise.assign.center_priors import (
    CenterPriorFunction,
    DistanceCenterPrior,
    ThresholdedCenterPrior,
    TopKCenterPrior,
)
from poise.assign.dual_weighting import (
    BySize,
    DualWeighting,
    LinearIoU,
    NormalizedIoU,
    Parameter,
    box_likelihood,
    overlap_power,
)
from poise.criteria import fcos_criterion
from poise.criteria.dual_weighting import DualWeightingCriterion, NegativeWeightFactors
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, check_choice, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.dual_weighting import BoundaryRefinement, DualWeightingHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess

FormName = Literal["code", "article"]
BagName = Literal["soft_center", "distance", "radius", "topk"]
NegativeName = Literal["both", "probability", "importance", "neither", "complement"]
OverlapName = Literal["normalized", "linear"]
LocationName = Literal["giou", "iou"]

NEGATIVES = {
    "both": NegativeWeightFactors.probability_and_importance,
    "probability": NegativeWeightFactors.probability_only,
    "importance": NegativeWeightFactors.importance_only,
    "neither": NegativeWeightFactors.neither,
    "complement": NegativeWeightFactors.complement,
}
OVERLAPS = {"normalized": NormalizedIoU, "linear": LinearIoU}
LOCATIONS = {"giou": box_likelihood, "iou": overlap_power}


@dataclass(frozen=True)
class Form:
    """What differs between the authors' code and their article: the values of the options of ``dw`` that are None."""

    mu_total: float | None  # None: equal to mu, so that the weights of an object sum to 1
    location: LocationName
    overlap_function: OverlapName
    detach_importance: bool
    bag_bounds_negatives: bool


FORMS = {"code": Form(3.0, "giou", "normalized", False, False), "article": Form(None, "iou", "linear", True, True)}


def dw(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    deformable_stages: Sequence[int] = (),
    deformable_towers: bool = False,
    channels: int = 256,
    depth: int = 4,
    refine: bool = True,
    form: FormName = "code",
    bag: BagName = "soft_center",
    bag_threshold: float = 0.3,
    bag_radius: float = 1.5,
    bag_topk: int = 9,
    bag_bounds_negatives: bool | None = None,
    beta: float = 5.0,
    mu: float = 5.0,
    mu_total: float | None = None,
    location: LocationName | None = None,
    detach_weights: bool = True,
    overlap_function: OverlapName | None = None,
    gamma1: float = 2.0,
    gamma2: float = 2.0,
    negative: NegativeName = "both",
    detach_importance: bool | None = None,
    beta_small: float | None = None,
    mu_small: float | None = None,
    gamma1_small: float | None = None,
    box_weight: float = 5.0,
    openable_sides: bool = False,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """DW on a feature pyramid.

    Args:
        deformable_stages: stages of the backbone with DCNv2.
        deformable_towers: DCNv2 in the last layer of both towers.
        refine: box refinement at learned boundary points.
        form: "code" (as published) or "article": the values of ``mu_total``, ``location``, ``overlap_function``,
            ``detach_importance`` and ``bag_bounds_negatives`` that are not given.
        bag: the candidate bag: "soft_center" weights points by the center prior, "distance" takes those where it is
            larger than ``bag_threshold``, "radius" those within ``bag_radius`` strides of the center, "topk" the
            ``bag_topk`` nearest of each level.
        bag_bounds_negatives: whether points outside of the bag are plain negatives, with probability 1 ("article"); in
            the code the probability decreases with the IoU in the whole object.
        beta: exponent of the box in the consistency, score * exp(-beta * GIoU loss), or score * IoU ** beta (as in the
            article) with ``location`` "iou".
        mu: factor in the exponent of the positive weight, exp(mu * consistency) * consistency.
        mu_total: the same in the sum that divides it; 3 in the code. With None in the article's form it is ``mu``, and
            the weights of an object sum to 1; otherwise ``mu`` also scales the loss.
        detach_weights: whether positive weights have no gradient.
        overlap_function: from IoU ** ``gamma1`` to the probability of being a negative: "normalized" by object (as
            in the code), or "linear" through (0.5, 1) and (0.95, 0) (as in the article).
        gamma2: exponent of the score in the importance; ``detach_importance`` stops its gradient.
        negative: factors of the negative weight inside objects; "complement" is 1 - positive weight.
        beta_small, mu_small, gamma1_small: values for objects of at most 32 px (the root of the area), from which they
            change to ``beta``, ``mu`` and ``gamma1`` at 96 px; by default the same. Lower values keep more samples of
            small objects.
        box_weight: weight of the box loss relative to the positive classification loss.
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    check_choice("form", form, FORMS)
    given = FORMS[form]
    mu_total = given.mu_total if mu_total is None else mu_total
    location = given.location if location is None else location
    overlap_function = given.overlap_function if overlap_function is None else overlap_function
    detach_importance = given.detach_importance if detach_importance is None else detach_importance
    bounded = given.bag_bounds_negatives if bag_bounds_negatives is None else bag_bounds_negatives
    check_choice("bag", bag, get_args(BagName))
    check_choice("negative", negative, NEGATIVES)
    check_choice("overlap_function", overlap_function, OVERLAPS)
    check_choice("location", location, LOCATIONS)
    body = Backbone(
        backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, deformable_stages=deformable_stages
    )
    neck = pyramid(body, channels, from_input=False, relu=True)
    refinement = BoundaryRefinement(channels, openable_sides) if refine else None
    grid = point_grid(neck.strides, 0.5)
    head = DualWeightingHead(
        channels, num_classes, grid, refinement, depth, deformable=deformable_towers, openable_sides=openable_sides
    )
    bags: dict[str, CenterPriorFunction] = {
        "soft_center": head.center_prior,
        "distance": ThresholdedCenterPrior(head.center_prior, bag_threshold),
        "radius": DistanceCenterPrior(bag_radius),
        "topk": TopKCenterPrior(bag_topk),
    }
    sharpness = by_size(mu_small, mu)
    assigner = DualWeighting(
        bags[bag],
        by_size(beta_small, beta),
        sharpness,
        sharpness if mu_total is None else mu_total,
        LOCATIONS[location],
        OVERLAPS[overlap_function](by_size(gamma1_small, gamma1)),
        detach_weights,
        bounded,
    )
    criterion = DualWeightingCriterion(0.25, box_weight, gamma2, NEGATIVES[negative], detach_importance)
    post = PostProcess(score_threshold, nms_threshold, min_size=-1, max_detections=max_detections)
    return PyramidDetector(body, neck, DenseBranch(head, assigner, criterion, post, fcos_criterion()))


def by_size(small: float | None, large: float) -> Parameter:
    """Return a parameter that is ``small`` for small objects, or the same number for all if it is None."""
    return large if small is None else BySize(small, large)
