"""GFLv2 (Li et al. 2021): the distributions of box distances predict the quality of the box.

GFL with one more small network, the distribution-guided quality predictor: it reads the sharpness of the four
distributions, and its output multiplies the class scores. The class target of the product is the IoU of the box.
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign import ATSS
from poise.criteria.distribution import gflv2_criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import pyramid, timm_backbone
from poise.nn.heads.distribution import DistributionHead, DistributionQuality
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess


@flat_options
def gflv2(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    deformable_stages: Sequence[int] = (),
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    bins: int = 17,
    reg_topk: int = 4,
    reg_channels: int = 64,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """GFLv2 on a feature pyramid, with distributions of distances over 0, ..., ``bins`` - 1 strides.

    Args:
        deformable_stages: stages of the backbone (of 3, 4, 5) with DCNv1, as published.
        reg_topk: number of largest probabilities of each side that the quality predictor reads, with their mean.
        reg_channels: hidden channels of the quality predictor.
    """
    body = timm_backbone(backbone, deformable_stages=deformable_stages, gated=False)
    neck = pyramid(body, channels, from_input=False, relu=False)
    quality = DistributionQuality(reg_topk, reg_channels)
    head = DistributionHead(channels, num_classes, square_anchors(neck.strides), bins, depth=depth, quality=quality)
    return PyramidDetector(body, neck, DenseBranch(head, ATSS(topk), gflv2_criterion(), PostProcess(**vars(nms))))
