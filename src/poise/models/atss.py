"""ATSS (Zhang et al. 2020): each object has its own IoU threshold, computed from its nearest anchors.

There is one square anchor per cell. The nine anchors of each level nearest to an object's center are its candidates;
those whose IoU reaches the mean plus the standard deviation of the candidates' IoUs are positive. Head and losses are
FCOS's: centerness, focal loss and GIoU loss.
"""

from __future__ import annotations

from dataclasses import replace

from poise.assign import ATSS
from poise.boxes import DeltaCoder
from poise.criteria import atss_criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import ClassLossName, Weights, class_supervision, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.centerness import CenternessHead, Offsets
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess


def atss(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    class_loss: ClassLossName = "focal",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """ATSS on a feature pyramid, with ``topk`` candidates per level and object.

    With ``class_loss="varifocal"`` the class target is the IoU of the prior's box (VarifocalNet's article, table 1).
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=False, relu=False)
    decoder = Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))
    head = CenternessHead(channels, num_classes, square_anchors(neck.strides), decoder, depth)
    element, soft_label = class_supervision(class_loss)
    criterion = replace(atss_criterion(), class_loss=element, soft_label=soft_label)
    branch = DenseBranch(
        head, ATSS(topk), criterion, PostProcess(score_threshold, nms_threshold, max_detections=max_detections)
    )
    return PyramidDetector(body, neck, branch)
