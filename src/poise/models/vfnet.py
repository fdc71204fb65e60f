"""VarifocalNet (Zhang et al. 2021): an IoU-aware dense detector.

VarifocalNet is FCOS with ATSS, without the centerness branch, and with three new parts. The class score is an IoU-aware
classification score (IACS), whose target is the IoU of the prior's own box. The varifocal loss (VFL) trains it: it
weights positives by their target and reduces the weight of easy negatives alone. The star-shaped box feature
represents the initial box by nine points at which a deformable convolution reads features, for the IACS and for the
box refinement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from poise.assign import ATSS
from poise.criteria.initial_boxes import InitialBoxCriterion
from poise.criteria.matched_labels import matched_iou
from poise.criteria.varifocal import BoxNormalizer, VarifocalCriterion, WeightingBox
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, class_supervision, pyramid, timm_backbone
from poise.nn.heads.star import PlainConv, StarConv, StarHead, StarRefinement, distance_scales
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess, topk_pairs, topk_priors

PreselectName = Literal["pairs", "priors"]

PRESELECT = {"pairs": topk_pairs, "priors": topk_priors}


@flat_options
def vfnet(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    deformable_stages: Sequence[int] = (),
    deformable_towers: bool = False,
    channels: int = 256,
    depth: int = 3,
    topk: int = 9,
    star: bool = True,
    refine: bool = True,
    gradient_scale: float = 0.1,
    class_loss: str = "varifocal",
    alpha: float | None = None,
    gamma: float | None = None,
    iou_weighted: bool = True,
    class_weight: float = 1.0,
    initial_weight: float = 1.5,
    refined_weight: float = 2.0,
    box_normalizer: BoxNormalizer = "iou",
    initial_iou: WeightingBox = "initial",
    preselect: PreselectName = "pairs",
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """VarifocalNet on a feature pyramid.

    Args:
        deformable_stages: stages of the backbone with DCNv2.
        deformable_towers: DCNv2 in the last layer of both towers.
        topk: ATSS candidates per level and object.
        star: read features at the points of the star; otherwise on the regular grid.
        refine: refine the box; otherwise the initial one is final.
        gradient_scale: factor of the gradient that the initial box receives from the points of the star.
        class_loss: loss of the IACS: ``varifocal``, ``quality_focal``, or a loss of matched labels such as
            ``matchability(gamma=1.5)`` (docs/criteria.md); ``focal`` has class targets of 1 instead of the IoU.
        alpha: weight of negatives in the varifocal loss (None: 0.75), or of positives in the focal loss (None: 0.25);
            the quality focal loss has none.
        gamma: exponent in the class loss (None: 2): of p at negatives of the varifocal loss, of 1 - p_t in the focal
            loss, of the distance to the target in the quality focal loss.
        iou_weighted: multiply the varifocal loss of positives by the IACS (q in eq. 2); otherwise their weight is 1.
        class_weight, initial_weight, refined_weight: weights of the losses of the IACS, of the initial box (lambda_0)
            and of the refined box (lambda_1). Without ``refine`` the only box has ``initial_weight``.
        box_normalizer: divisor of each box loss: ``iou``, the sum of the IoUs that weight it (the authors' code), or
            ``positives``, the number of positives (article, eq. 3).
        initial_iou: box whose IoU weights the loss of the initial box: ``initial`` (the authors' code) or ``refined``
            (article, eq. 3).
        preselect: candidates of each level before NMS: ``pairs``, the top pairs of prior and class (MMDetection 3), or
            ``priors``, all classes of the top priors (the authors' code, with which the AP was published).
    """
    body = timm_backbone(backbone, deformable_stages=deformable_stages)
    neck = pyramid(body, channels, from_input=False, relu=True)
    layer = StarConv if star else PlainConv
    refinement = StarRefinement(channels, len(neck.strides), layer(channels)) if refine else None
    head = StarHead(
        channels,
        num_classes,
        square_anchors(neck.strides),
        layer(channels),
        refinement=refinement,
        depth=depth,
        distance_scales=distance_scales(neck.strides),
        gradient_scale=gradient_scale,
        deformable=deformable_towers,
    )
    check_choice("preselect", preselect, PRESELECT)
    postprocess = PostProcess(**vars(nms), preselect=PRESELECT[preselect])
    check_refinement(refine, refined_weight, initial_iou)
    loss = class_loss_of_iacs(class_loss, alpha, gamma, iou_weighted)
    weights = (initial_weight, refined_weight, class_weight)
    criterion = VarifocalCriterion(loss, class_loss == "focal", *weights, box_normalizer, initial_iou)
    initial = InitialBoxCriterion() if refine else None
    branch = DenseBranch(head, ATSS(topk), criterion, postprocess, initial_criterion=initial)
    return PyramidDetector(body, neck, branch)


def check_refinement(refine: bool, refined_weight: float, initial_iou: WeightingBox) -> None:
    """Check that options of the refined box are given only where there is one.

    Raises:
        ValueError: they are given without it.
    """
    if not refine and (refined_weight, initial_iou) != (2.0, "initial"):
        values = f"refined_weight={refined_weight} and initial_iou='{initial_iou}'"
        raise ValueError(f"refine=False excludes {values}: there is no refined box; leave them out")


def class_loss_of_iacs(
    name: str, alpha: float | None, gamma: float | None, iou_weighted: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the elementwise class loss; a parameter that is None keeps the default of the loss.

    Raises:
        ValueError: the loss has no such parameter, or a value is negative.
    """
    loss, label = class_supervision(name)
    if name != "varifocal" and not iou_weighted:
        raise ValueError(f"iou_weighted=False excludes class_loss='{name}': only the varifocal loss weights by the IoU")
    if label is matched_iou and (alpha, gamma) != (None, None):
        raise ValueError(f"alpha={alpha}, gamma={gamma} exclude class_loss='{name}': write them into its text")
    if name == "quality_focal" and alpha is not None:
        raise ValueError(f"alpha={alpha} excludes class_loss='quality_focal', which has no alpha")
    exponent = "beta" if name == "quality_focal" else "gamma"
    given = {key: value for key, value in (("alpha", alpha), (exponent, gamma)) if value is not None}
    if min(given.values(), default=0.0) < 0:
        raise ValueError(f"alpha={alpha}, gamma={gamma}: neither can be negative")
    options = given if iou_weighted else {**given, "iou_weighted": False}
    return partial(loss, **options) if options else loss
