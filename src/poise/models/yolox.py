"""YOLOX (Ge et al. 2021): an anchor-free YOLO, here on the backbones and the pyramid of the other detectors.

A decoupled head predicts class, objectness and box of every cell; SimOTA assigns by the cost of predictions. In the
last epochs, without mosaic and mixup, an L1 loss of the offsets is added to the IoU loss. The original's backbone
(CSPDarknet) and PAFPN are not included.
"""

from __future__ import annotations

from poise.assign import SimOTA
from poise.boxes import DeltaCoder
from poise.criteria.yolox import YOLOXCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.decoupled import DecoupledHead
from poise.nn.layers import point_grid
from poise.nn.necks.fpn import FPN, NoLevels
from poise.postprocess import PostProcess
from poise.protocols import Criterion
from poise.structures import SwitchAtEpoch

MAX_LOG = 16.0  # upper bound of log sizes, far above any box, so that finite outputs give finite boxes


def yolox(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    channels: int = 256,
    depth: int = 2,
    topk: int = 10,
    radius: float = 2.5,
    l1_epoch: int = 285,
    score_threshold: float = 0.01,
    nms_threshold: float = 0.65,
    max_detections: int = 100,
) -> PyramidDetector:
    """YOLOX's head, assignment and losses on levels of stride 8, 16 and 32.

    Args:
        depth: layers of each of the two towers of the head.
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        radius: strides from an object's center within which cells are preferred.
        l1_epoch: epoch from which the L1 loss of the offsets is added; as published 285 of 300.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval)
    neck = FPN(body.channels, body.strides, channels, NoLevels())
    coder = DeltaCoder(max_log_ratio=MAX_LOG)
    head = DecoupledHead(channels, num_classes, point_grid(neck.strides, 0.0), coder, depth)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(
        YOLOXCriterion(coder), YOLOXCriterion(coder, offset_weight=1.0), l1_epoch
    )
    postprocess = PostProcess(score_threshold, nms_threshold, max_detections=max_detections)
    return PyramidDetector(body, neck, DenseBranch(head, SimOTA(topk, radius, shift=0.5), criterion, postprocess))
