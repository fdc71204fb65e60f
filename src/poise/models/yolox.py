"""YOLOX (Ge et al. 2021): an anchor-free YOLO, here on the backbones and the pyramid of the other detectors.

A decoupled head predicts class, objectness and box of every cell; SimOTA assigns by the cost of predictions. In the
last epochs, without mosaic and mixup, an L1 loss of the offsets is added to the IoU loss. The original's backbone
(CSPDarknet) and PAFPN are not included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from poise.assign import SimOTA
from poise.boxes import DeltaCoder
from poise.criteria.yolox import YOLOXCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.losses import binary_cross_entropy, hard_label
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import CLASS_LOSSES, ClassSupervision, check_choice, timm_backbone
from poise.nn.heads.decoupled import DecoupledHead
from poise.nn.layers import point_grid
from poise.nn.necks.feature_pyramids import FPN, NoLevels
from poise.postprocess import PostProcess
from poise.protocols import Criterion
from poise.structures import SwitchAtEpoch

ObjectnessLossName = Literal["cross_entropy", "focal", "quality_focal", "varifocal"]
OBJECTNESS_LOSSES: dict[str, ClassSupervision] = {"cross_entropy": (binary_cross_entropy, hard_label), **CLASS_LOSSES}
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
    objectness_loss: ObjectnessLossName = "cross_entropy",
    nms: NMSOptions = NMSOptions(score_threshold=0.01, nms_threshold=0.65),
) -> PyramidDetector:
    """YOLOX's head, assignment and losses on levels of stride 8, 16 and 32.

    Args:
        depth: layers of each of the two towers of the head.
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        radius: strides from an object's center within which cells are preferred.
        objectness_loss: loss of the objectness of all priors, and its target at positives: ``cross_entropy`` or
            ``focal`` (1), ``quality_focal`` or ``varifocal`` (the IoU of the predicted box with its object). The class
            loss covers positives alone and does not change.
        l1_epoch: epoch from which the L1 loss of the offsets is added; as published 285 of 300.
    """
    body = timm_backbone(backbone)
    neck = FPN(body.channels, body.strides, channels, NoLevels())
    coder = DeltaCoder(max_log_ratio=MAX_LOG)
    head = DecoupledHead(channels, num_classes, point_grid(neck.strides, 0.0), coder, depth=depth)
    check_choice("objectness_loss", objectness_loss, OBJECTNESS_LOSSES)
    element, label = OBJECTNESS_LOSSES[objectness_loss]
    first = YOLOXCriterion(coder, objectness_loss=element, objectness_label=label)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(first, replace(first, offset_weight=1.0), l1_epoch)
    postprocess = PostProcess(**vars(nms))
    return PyramidDetector(body, neck, DenseBranch(head, SimOTA(topk, radius, shift=0.5), criterion, postprocess))
