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
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_args

from poise.assign.center_priors import (
    CenterPrior,
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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, pyramid, timm_backbone
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


@flat_options
def dw(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
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
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """DW on a feature pyramid.

    Args:
        deformable_stages, deformable_towers: DCNv2 in stages of the backbone, and in the last layer of both towers.
        refine: box refinement at learned boundary points.
        form: "code" (as published) or "article": the values of ``mu_total``, ``location``, ``overlap_function``,
            ``detach_importance`` and ``bag_bounds_negatives`` that are not given.
        bag: the candidate bag: "soft_center" weights points by the center prior, "distance" takes those where it is
            larger than ``bag_threshold``, "radius" those within ``bag_radius`` strides of the center, "topk" the
            ``bag_topk`` nearest of each level.
        bag_bounds_negatives: whether points outside of the bag are plain negatives, with probability 1 (article).
        beta: exponent of the box in the consistency, score * exp(-beta * GIoU loss), or score * IoU ** beta (article)
            with ``location`` "iou".
        mu: factor in the exponent of the positive weight, exp(mu * consistency) * consistency.
        mu_total: the same in the sum that divides it: 3 in the code, ``mu`` in the article (weights sum to 1).
        detach_weights: whether positive weights have no gradient.
        overlap_function: from IoU ** ``gamma1`` to the probability of being a negative: "normalized" by object (code),
            or "linear" through (0.5, 1) and (0.95, 0) (article).
        gamma2: exponent of the score in the importance; ``detach_importance`` stops its gradient (article).
        negative: factors of the negative weight inside objects; "complement" is 1 - positive weight.
        beta_small, mu_small, gamma1_small: values for objects of at most 32 px (the root of the area), which change to
            ``beta``, ``mu`` and ``gamma1`` at 96 px; None: the same. Lower values keep more samples of small objects.
        box_weight: weight of the box loss relative to the positive classification loss.
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    own = resolved_form(form, mu_total, location, overlap_function, detach_importance, bag_bounds_negatives)
    check_choice("negative", negative, NEGATIVES)
    body = timm_backbone(backbone, deformable_stages=deformable_stages)
    neck = pyramid(body, channels, from_input=False, relu=True)
    refinement = BoundaryRefinement(channels, openable_sides) if refine else None
    grid = point_grid(neck.strides, 0.5)
    head = DualWeightingHead(
        channels, num_classes, grid, refinement, depth, deformable=deformable_towers, openable_sides=openable_sides
    )
    center_prior = candidate_bag(bag, head.center_prior, bag_threshold, bag_radius, bag_topk)
    parameters = by_size(beta_small, beta), by_size(mu_small, mu), by_size(gamma1_small, gamma1)
    assigner = weighting(own, center_prior, *parameters, detach_weights)
    criterion = DualWeightingCriterion(0.25, box_weight, gamma2, NEGATIVES[negative], own.detach_importance)
    post = PostProcess(**vars(nms), min_size=-1)
    return PyramidDetector(body, neck, DenseBranch(head, assigner, criterion, post, fcos_criterion()))


def resolved_form(name: FormName, *given: Any) -> Form:
    """Return a form, in which the values ``given`` in the order of its fields replace its own unless they are None."""
    check_choice("form", name, FORMS)
    form = Form(*(own if value is None else value for own, value in zip(astuple(FORMS[name]), given, strict=True)))
    check_choice("overlap_function", form.overlap_function, OVERLAPS)
    check_choice("location", form.location, LOCATIONS)
    return form


def weighting(
    form: Form, center_prior: CenterPriorFunction, beta: Parameter, mu: Parameter, gamma: Parameter, detached: bool
) -> DualWeighting:
    """Return the assigner of a form."""
    return DualWeighting(
        center_prior,
        beta,
        mu,
        mu if form.mu_total is None else form.mu_total,
        LOCATIONS[form.location],
        OVERLAPS[form.overlap_function](gamma),
        detached,
        form.bag_bounds_negatives,
    )


def candidate_bag(
    name: BagName, center_prior: CenterPrior, threshold: float, radius: float, topk: int
) -> CenterPriorFunction:
    """Return the center prior of a candidate bag; the arguments after ``center_prior`` are those of the other bags."""
    check_choice("bag", name, get_args(BagName))
    bags: dict[str, CenterPriorFunction] = {
        "soft_center": center_prior,
        "distance": ThresholdedCenterPrior(center_prior, threshold),
        "radius": DistanceCenterPrior(radius),
        "topk": TopKCenterPrior(topk),
    }
    return bags[name]


def by_size(small: float | None, large: float) -> Parameter:
    """Return a parameter that is ``small`` for small objects, or the same number for all if it is None."""
    return large if small is None else BySize(small, large)
