"""Libra R-CNN (Pang et al. 2019): balanced learning at sample, feature and objective level.

IoU-balanced sampling draws negatives evenly over their IoU with objects, and positives evenly over objects. The
balanced feature pyramid (BFP) adds one refined mean of all levels to every level. Balanced L1 raises the gradient of
accurate boxes relative to outliers. Each of the three can be used alone.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.region import RegionBranch
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.faster_rcnn import proposal_stage, region_box_loss, region_stage
from poise.models.groups import BackboneOptions, BalancedPyramidOptions, BoxLossOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, pyramid, refuse_without_effect, timm_backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.nn.necks.feature_pyramids import FPN, REFINEMENTS, SubsampledLevel, balanced_pyramid
from poise.postprocess import PostProcess, RegionPostProcess
from poise.sample import TakeAll, libra_sampler, random_sampler


@flat_options
def libra_faster_rcnn(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    hidden: int = 1024,
    bfp: BalancedPyramidOptions = BalancedPyramidOptions(),
    box_loss: BoxLossOptions = BoxLossOptions(box_loss="balanced_l1"),
    iou_bins: int = 3,
    anchors: int = 256,
    regions: int = 512,
    proposals: int = 1000,
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
    deterministic: bool = False,
) -> PyramidDetector:
    """Build Faster R-CNN with the three changes.

    Args:
        iou_bins: number of IoU bins from which negatives are drawn evenly; 1: all negatives with an IoU above 0.
        hidden: width of the fully connected layers.
        anchors, regions: samples of the two stages in an image.
        proposals: of an image, from the first stage to the second.

    The other arguments are those of ``faster_rcnn``.
    """
    body = timm_backbone(backbone, (2, 3, 4, 5), caffe=caffe)
    levels = FPN(body.channels, body.strides, channels, SubsampledLevel())
    first = proposal_stage(levels, None if deterministic else random_sampler(anchors, 0.5, 5), proposals)
    sampler = TakeAll() if deterministic else libra_sampler(regions, iou_bins=iou_bins)
    postprocess = RegionPostProcess(**vars(nms))
    loss = region_box_loss(**vars(box_loss))
    second = region_stage(levels, num_classes, hidden, sampler, box_loss=loss, postprocess=postprocess)
    return PyramidDetector(body, balanced(levels, **vars(bfp)), RegionBranch(first, second))


@flat_options
def libra_retinanet(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    bfp: BalancedPyramidOptions = BalancedPyramidOptions(),
    box_loss: BoxLossOptions = BoxLossOptions(box_loss="balanced_l1"),
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """Build RetinaNet with the balanced feature pyramid and balanced L1; RetinaNet does not sample.

    The published code has beta = 0.11, with which the smallest errors get a larger gradient instead of a smaller one;
    the article's loss has beta = 1 (``l1_beta=1.0``).
    """
    if box_loss.box_loss == "balanced_l1" and box_loss.l1_beta is None:
        box_loss = replace(box_loss, l1_beta=0.11)
    body = timm_backbone(backbone, caffe=caffe)
    levels = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder()
    head = AnchorHead(channels, num_classes, retina_anchors(levels.strides), coder, depth=depth)
    criterion = AnchorCriterion(coder, offset_loss=region_box_loss(**vars(box_loss)))
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0), criterion, PostProcess(**vars(nms)))
    return PyramidDetector(body, balanced(levels, **vars(bfp)), branch)


def balanced(levels: FPN, refine: str, refine_level: int | None) -> nn.Module:
    """Add the balanced feature pyramid unless ``refine`` is ``off``; the mean has the size of ``refine_level``.

    Raises:
        ValueError: an unknown refinement, a level that does not exist, or a level without refinement.
    """
    check_choice("refine", refine, ("off", *REFINEMENTS))
    if refine == "off":
        refuse_without_effect("refine='off' leaves the pyramid as it is", refine_level=refine_level)
        return levels
    return nn.Sequential(levels, balanced_pyramid(levels.channels, levels.strides, refine_level, refine))
