"""Generalized focal loss, GFL (Li et al. 2020): class scores are IoUs, box distances are distributions.

ATSS assigns anchors to objects. The class target of a positive is the IoU of its predicted box, with the quality focal
loss (QFL). Each box distance is the mean of a discrete distribution, and the distribution focal loss (DFL) raises the
probabilities of the two bins next to the target.
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign import ATSS
from poise.criteria import DistributionCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import pyramid, timm_backbone
from poise.nn.heads.distribution import DistributionHead
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess


@flat_options
def gfl(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    deformable_stages: Sequence[int] = (),
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    bins: int = 17,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """GFL on a feature pyramid, with distributions of distances over 0, ..., ``bins`` - 1 strides.

    ``deformable_stages`` are stages of the backbone (of 3, 4, 5) with DCNv1, as published.
    """
    body = timm_backbone(backbone, caffe=caffe, deformable_stages=deformable_stages, gated=False)
    neck = pyramid(body, channels, from_input=False, relu=False)
    head = DistributionHead(channels, num_classes, square_anchors(neck.strides), bins, depth)
    branch = DenseBranch(head, ATSS(topk), DistributionCriterion(), PostProcess(**vars(nms)))
    return PyramidDetector(body, neck, branch)
