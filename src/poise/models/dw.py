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
from poise.models.parts import check_choice, pyramid, refuse_without_effect, timm_backbone
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
    bag_threshold: float | None = None,
    bag_radius: float | None = None,
    bag_topk: int | None = None,
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
    gamma2_small: float | None = None,
    box_weight: float = 5.0,
    openable_sides: bool = False,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """DW on a feature pyramid.

    Args:
        deformable_stages, deformable_towers: DCNv2 in stages of the backbone, and in the last layer of both towers.
        depth: layers of each tower.
        refine: box refinement at learned boundary points.
        form: "code" (as published) or "article": the values of the options marked (article), and of mu_total.
        bag: candidate bag: "soft_center" (Gaussian of the distance from the center), "distance", "radius" or "topk".
        bag_threshold: center prior above which "distance" takes a point (0.3: within 1.72 strides).
        bag_radius, bag_topk: strides from the center ("radius", 1.5); nearest points of each level ("topk", 9).
        bag_bounds_negatives: points outside of the bag are plain negatives, with probability 1 (article).
        beta: exponent of the box in the consistency.
        mu: factor in the exponent of the positive weight, exp(mu * consistency) * consistency.
        mu_total: the same in the sum that divides it: 3 in the code, ``mu`` in the article (weights sum to 1).
        location: box term of the consistency: "giou", exp(-beta * GIoU loss) (code), or "iou", IoU ** beta (article).
        detach_weights: positive weights have no gradient.
        overlap_function: probability of being a negative: "normalized" by object, or "linear", 0 at 0.95 (article).
        gamma1: exponent of the IoU in this probability.
        gamma2: exponent of the score in the importance as a negative.
        negative: factors of the negative weight: "both", "probability", "importance", "neither", "complement".
        detach_importance: the importance has no gradient (article).
        beta_small: ``beta`` of objects of at most 32 px (root of the area); it changes to ``beta`` at 96 px.
        mu_small, gamma1_small, gamma2_small: the same for mu (small values keep more samples), gamma1 and gamma2.
        box_weight: weight of the box loss relative to the positive classification loss.
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    own = resolved_form(form, mu_total, location, overlap_function, detach_importance, bag_bounds_negatives)
    check_choice("negative", negative, NEGATIVES)
    refuse_unread(bag, bag_bounds_negatives, negative, gamma2_small)
    body = timm_backbone(backbone, deformable_stages=deformable_stages)
    neck = pyramid(body, channels, from_input=False, relu=True)
    refinement = BoundaryRefinement(channels, openable_sides) if refine else None
    grid = point_grid(neck.strides, 0.5)
    sides = {"deformable": deformable_towers, "openable_sides": openable_sides}
    head = DualWeightingHead(channels, num_classes, grid, refinement, depth=depth, **sides)
    center_prior = candidate_bag(bag, head.center_prior, threshold=bag_threshold, radius=bag_radius, topk=bag_topk)
    small = by_size(beta_small, beta), by_size(mu_small, mu), by_size(gamma1_small, gamma1)
    assigner = weighting(own, center_prior, small, detached=detach_weights, return_sizes=gamma2_small is not None)
    gamma = by_size(gamma2_small, gamma2)
    criterion = DualWeightingCriterion(0.25, box_weight, gamma, NEGATIVES[negative], own.detach_importance)
    post = PostProcess(**vars(nms), min_size=-1)
    return PyramidDetector(body, neck, DenseBranch(head, assigner, criterion, post, hard_criterion=fcos_criterion()))


def resolved_form(name: FormName, *given: Any) -> Form:
    """Return a form, in which the values ``given`` in the order of its fields replace its own unless they are None."""
    check_choice("form", name, FORMS)
    form = Form(*(own if value is None else value for own, value in zip(astuple(FORMS[name]), given, strict=True)))
    check_choice("overlap_function", form.overlap_function, OVERLAPS)
    check_choice("location", form.location, LOCATIONS)
    return form


def refuse_unread(bag: BagName, bounds: bool | None, negative: NegativeName, gamma2_small: float | None) -> None:
    """Check that ``bag_bounds_negatives`` and ``gamma2_small`` have an effect if they are given.

    Raises:
        ValueError: one has none.
    """
    if bag == "soft_center":
        refuse_without_effect("bag='soft_center' covers the whole object", bag_bounds_negatives=bounds or None)
    if negative not in ("both", "importance"):
        refuse_without_effect(f"negative='{negative}' has no importance within objects", gamma2_small=gamma2_small)


def weighting(
    form: Form,
    center_prior: CenterPriorFunction,
    parameters: tuple[Parameter, Parameter, Parameter],
    *,
    detached: bool,
    return_sizes: bool,
) -> DualWeighting:
    """Return the assigner of a form; ``parameters`` are beta, mu and gamma_1."""
    beta, mu, gamma = parameters
    return DualWeighting(
        center_prior,
        beta,
        mu,
        mu if form.mu_total is None else form.mu_total,
        LOCATIONS[form.location],
        OVERLAPS[form.overlap_function](gamma),
        detached,
        form.bag_bounds_negatives,
        return_sizes,
    )


def candidate_bag(
    name: BagName, center_prior: CenterPrior, *, threshold: float | None, radius: float | None, topk: int | None
) -> CenterPriorFunction:
    """Return the center prior of a candidate bag; the arguments after ``center_prior`` are those of the other bags.

    Raises:
        ValueError: an unknown bag, or an argument of another one.
    """
    check_choice("bag", name, get_args(BagName))
    own = {"distance": "bag_threshold", "radius": "bag_radius", "topk": "bag_topk"}
    given = {"bag_threshold": threshold, "bag_radius": radius, "bag_topk": topk}
    others = {option: value for option, value in given.items() if option != own.get(name)}
    refuse_without_effect(f"bag='{name}' does not read it", **others)
    if name == "distance":
        return ThresholdedCenterPrior(center_prior, 0.3 if threshold is None else threshold)
    if name == "radius":
        return DistanceCenterPrior(1.5 if radius is None else radius)
    return TopKCenterPrior(9 if topk is None else topk) if name == "topk" else center_prior


def by_size(small: float | None, large: float) -> Parameter:
    """Return a parameter that is ``small`` for small objects, or the same number for all if it is None."""
    return large if small is None else BySize(small, large)
