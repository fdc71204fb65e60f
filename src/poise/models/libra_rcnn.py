"""Libra R-CNN (Pang et al. 2019): balanced learning at sample, feature and objective level.

IoU-balanced sampling draws negatives evenly over their IoU with objects, and positives evenly over objects. The
balanced feature pyramid (BFP) adds one refined mean of all levels to every level. Balanced L1 raises the gradient of
accurate boxes relative to outliers. Each of the three can be used alone.
"""

from __future__ import annotations

from torch import nn

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.region import RegionBranch
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.faster_rcnn import BOX_LOSSES, choose, proposal_stage, region_stage
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import pyramid, timm_backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.nn.necks.balanced_pyramid import BalancedPyramid
from poise.nn.necks.fpn import FPN, SubsampledLevel
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
    refine: str = "non_local",
    box_loss: str = "balanced_l1",
    anchors: int = 256,
    regions: int = 512,
    proposals: int = 1000,
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
    deterministic: bool = False,
) -> PyramidDetector:
    """Build Faster R-CNN with the three changes.

    Args:
        refine: of the balanced feature pyramid: ``non_local``, ``conv`` or ``none``; ``off`` leaves the pyramid as it
            is.
        box_loss: of regions; ``l1`` is Faster R-CNN's.

    The other arguments are those of ``faster_rcnn``.
    """
    body = timm_backbone(backbone, (2, 3, 4, 5), caffe=caffe)
    levels = FPN(body.channels, body.strides, channels, SubsampledLevel())
    first = proposal_stage(levels, None if deterministic else random_sampler(anchors, 0.5, 5), proposals)
    sampler = TakeAll() if deterministic else libra_sampler(regions)
    postprocess = RegionPostProcess(**vars(nms))
    second = region_stage(levels, num_classes, hidden, sampler, choose("box_loss", BOX_LOSSES, box_loss), postprocess)
    return PyramidDetector(body, balanced(levels, 2, refine), RegionBranch(first, second))


@flat_options
def libra_retinanet(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    refine: str = "non_local",
    box_loss: str = "balanced_l1_0.11",
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """Build RetinaNet with the balanced feature pyramid and balanced L1; RetinaNet does not sample.

    The published code has beta = 0.11, with which the smallest errors get a larger gradient instead of a smaller one;
    the article's loss has beta = 1 (``box_loss="balanced_l1"``).
    """
    body = timm_backbone(backbone, caffe=caffe)
    levels = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder()
    head = AnchorHead(channels, num_classes, retina_anchors(levels.strides), coder, depth)
    criterion = AnchorCriterion(coder, offset_loss=choose("box_loss", BOX_LOSSES, box_loss))
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0), criterion, PostProcess(**vars(nms)))
    return PyramidDetector(body, balanced(levels, 1, refine), branch)


def balanced(levels: FPN, gather: int, refine: str) -> nn.Module:
    """Add the balanced feature pyramid, gathered at level ``gather``, unless ``refine`` is ``off``."""
    return levels if refine == "off" else nn.Sequential(levels, BalancedPyramid(levels.channels, gather, refine))
