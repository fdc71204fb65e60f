"""VarifocalNet (Zhang et al. 2021): an IoU-aware dense detector.

VarifocalNet is FCOS with ATSS, without the centerness branch, and with three new parts. The class score is an IoU-aware
classification score (IACS), whose target is the IoU of the prior's own box. The varifocal loss (VFL) trains it: it
weights positives by their target and reduces the weight of easy negatives alone. The star-shaped box feature
represents the initial box by nine points at which a deformable convolution reads features, for the IACS and for the
box refinement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from poise import losses
from poise.assign import ATSS
from poise.criteria.initial_boxes import InitialBoxCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, pyramid, timm_backbone
from poise.nn.heads.star import PlainConv, StarConv, StarHead, StarRefinement, distance_scales
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess, topk_pairs, topk_priors

LossName = Literal["varifocal", "quality_focal", "focal"]
PreselectName = Literal["pairs", "priors"]

CRITERIA = {
    "varifocal": VarifocalCriterion(),
    "quality_focal": VarifocalCriterion(losses.quality_focal),
    "focal": VarifocalCriterion(losses.focal, hard_labels=True),
}
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
    class_loss: LossName = "varifocal",
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
        class_loss: loss of the IACS; "focal" has class targets of 1 instead of the IoU.
        preselect: what is kept of each level before NMS: the top (prior, class) pairs (MMDetection 3), or all classes
            of the top priors (the authors' code, with which the AP was published).
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
        refinement,
        depth,
        distance_scales=distance_scales(neck.strides),
        gradient_scale=gradient_scale,
        deformable=deformable_towers,
    )
    check_choice("class_loss", class_loss, CRITERIA)
    check_choice("preselect", preselect, PRESELECT)
    postprocess = PostProcess(**vars(nms), preselect=PRESELECT[preselect])
    initial = InitialBoxCriterion() if refine else None
    branch = DenseBranch(head, ATSS(topk), CRITERIA[class_loss], postprocess, initial_criterion=initial)
    return PyramidDetector(body, neck, branch)
