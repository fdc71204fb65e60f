"""GFL (Li et al. 2020): class scores that are qualities, box sides that are distributions.

ATSS decides which anchors are positive. Their class score is taught the IoU of the predicted box (quality focal
loss); each side of the box is the mean of a distribution that is taught its two nearest bins (distribution focal loss).
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign import ATSS
from poise.criteria import DistributionCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.head_layers import square_anchors
from poise.nn.heads.distribution import DistributionHead
from poise.postprocess import PostProcess


def gfl(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    deformable_stages: Sequence[int] = (),
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    bins: int = 17,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """GFL on a feature pyramid; each side is a distribution over 0 … ``bins`` - 1 strides.

    ``deformable_stages`` of the backbone (3, 4, 5) have deformable convolutions (DCNv1, as published).
    """
    body = Backbone(
        backbone,
        (3, 4, 5),
        backbone_weights,
        frozen_stages,
        norm_eval,
        not caffe,
        caffe,
        deformable_stages,
        gated=False,
    )
    neck = pyramid(body, channels, from_input=False, relu=False)
    head = DistributionHead(channels, num_classes, square_anchors(neck.strides), bins, depth)
    branch = DenseBranch(
        head,
        ATSS(topk),
        DistributionCriterion(),
        PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
    )
    return PyramidDetector(body, neck, branch)
