"""FCOS (Tian et al. 2019): points near an object's center are assigned to it, and centerness ranks their boxes.

This is the improved form of the original code: center sampling within 1.5 strides of the object's center, on the level
for its size; distances in strides; centerness from the regression tower; GIoU loss.
"""

from __future__ import annotations

from poise.assign import CenterRegion
from poise.criteria import fcos_criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.centerness import CenternessHead, Distances
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


def fcos(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    radius: float = 1.5,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """FCOS on a feature pyramid; ``radius`` in strides is that of center sampling (0: the whole object)."""
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=False, relu=True)
    head = CenternessHead(channels, num_classes, point_grid(neck.strides, 0.5), Distances(), depth, tower_bias=True)
    branch = DenseBranch(
        head,
        CenterRegion(radius),
        fcos_criterion(),
        PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
    )
    return PyramidDetector(body, neck, branch)
