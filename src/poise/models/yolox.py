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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import timm_backbone
from poise.nn.heads.decoupled import DecoupledHead
from poise.nn.layers import point_grid
from poise.nn.necks.fpn import FPN, NoLevels
from poise.postprocess import PostProcess
from poise.protocols import Criterion
from poise.structures import SwitchAtEpoch

MAX_LOG = 16.0  # upper bound of log sizes, far above any box, so that finite outputs give finite boxes


@flat_options
def yolox(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    channels: int = 256,
    depth: int = 2,
    topk: int = 10,
    radius: float = 2.5,
    l1_epoch: int = 285,
    nms: NMSOptions = NMSOptions(score_threshold=0.01, nms_threshold=0.65),
) -> PyramidDetector:
    """YOLOX's head, assignment and losses on levels of stride 8, 16 and 32.

    Args:
        depth: layers of each of the two towers of the head.
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        radius: strides from an object's center within which cells are preferred.
        l1_epoch: epoch from which the L1 loss of the offsets is added; as published 285 of 300.
    """
    body = timm_backbone(backbone)
    neck = FPN(body.channels, body.strides, channels, NoLevels())
    coder = DeltaCoder(max_log_ratio=MAX_LOG)
    head = DecoupledHead(channels, num_classes, point_grid(neck.strides, 0.0), coder, depth)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(
        YOLOXCriterion(coder), YOLOXCriterion(coder, offset_weight=1.0), l1_epoch
    )
    postprocess = PostProcess(**vars(nms))
    return PyramidDetector(body, neck, DenseBranch(head, SimOTA(topk, radius, shift=0.5), criterion, postprocess))
