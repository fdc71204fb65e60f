"""Dual weighting, DW (Li et al. 2022): each prior has a positive and a negative weight.

Points predict classes, objectness and boxes as in FCOS. For each object, the points that its center prior covers form
the candidate bag. The positive weight of a candidate increases with its consistency, the agreement of its class score
and the IoU of its box. Its negative weight is the product of the probability that it is a negative, which decreases
with the IoU, and of its importance as a negative, its score. Box refinement predicts each box twice: every side of the
coarse box is read again at a learned boundary point. The defaults are those of the authors' code; the options are the
rows of the article's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from poise.assign.center_priors import CenterPriorFunction, ThresholdedCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import DualWeighting, LinearIoU, NormalizedIoU, box_likelihood, overlap_power
from poise.criteria import fcos_criterion
from poise.criteria.dual_weighting import DualWeightingCriterion, NegativeWeightFactors
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, check_choice, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.dual_weighting import BoundaryRefinement, DualWeightingHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess

BagName = Literal["soft_center", "distance", "topk"]
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
    bag: BagName = "soft_center",
    bag_threshold: float = 0.3,
    bag_topk: int = 9,
    beta: float = 5.0,
    mu: float = 5.0,
    mu_total: float = 3.0,
    location: LocationName = "giou",
    detach_weights: bool = True,
    overlap_function: OverlapName = "normalized",
    gamma1: float = 2.0,
    gamma2: float = 2.0,
    negative: NegativeName = "both",
    detach_importance: bool = False,
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
        bag: the candidate bag: "soft_center" weights points by the center prior, "distance" takes those where it is
            larger than ``bag_threshold``, "topk" the ``bag_topk`` nearest of each level.
        beta: exponent of the box in the consistency, score * exp(-beta * GIoU loss), or score * IoU ** beta (as in the
            article) with ``location`` "iou".
        mu, mu_total: factors in the exponent of the positive weight, and of the sum that divides it (equal in the
            article).
        detach_weights: whether positive weights have no gradient.
        overlap_function: from IoU ** ``gamma1`` to the probability of being a negative: "normalized" by object (as
            in the code), or "linear" through (0.5, 1) and (0.95, 0) (as in the article).
        gamma2: exponent of the score in the importance; ``detach_importance`` stops its gradient.
        negative: factors of the negative weight inside objects; "complement" is 1 - positive weight.
        box_weight: weight of the box loss relative to the positive classification loss.
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
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
        "topk": TopKCenterPrior(bag_topk),
    }
    overlap = OVERLAPS[overlap_function](gamma1)
    assigner = DualWeighting(bags[bag], beta, mu, mu_total, LOCATIONS[location], overlap, detach_weights)
    criterion = DualWeightingCriterion(0.25, box_weight, gamma2, NEGATIVES[negative], detach_importance)
    post = PostProcess(score_threshold, nms_threshold, min_size=-1, max_detections=max_detections)
    return PyramidDetector(body, neck, DenseBranch(head, assigner, criterion, post, fcos_criterion()))
