"""Generalized focal loss, GFL (Li et al. 2020): class scores are IoUs, box distances are distributions.

ATSS assigns anchors to objects. The class target of a positive is the IoU of its predicted box, with the quality focal
loss (QFL). Each box distance is the mean of a discrete distribution, and the distribution focal loss (DFL) raises the
probabilities of the two bins next to the target.
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign import ATSS
from poise.criteria import DistributionCriterion
from poise.criteria.distribution import focal_of_logits, vfl_of_logits
from poise.criteria.matched_labels import matched_iou
from poise.detectors import DenseBranch, PyramidDetector
from poise.losses import hard_label
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import matched_label, pyramid, timm_backbone
from poise.nn.heads.distribution import DistributionHead
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess

CLASS_LOSSES = {
    "focal": DistributionCriterion(class_loss=focal_of_logits, soft_label=hard_label),
    "quality_focal": DistributionCriterion(),
    "varifocal": DistributionCriterion(class_loss=vfl_of_logits),
}


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
    class_loss: str = "quality_focal",
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """GFL on a feature pyramid.

    Args:
        deformable_stages: stages of the backbone (of 3, 4, 5) with DCNv1, as published.
        bins: distances are distributions over 0, ..., ``bins`` - 1 strides.
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
    """
    label = matched_label(class_loss, CLASS_LOSSES)
    matched = None if label is None else DistributionCriterion(class_loss=label, soft_label=matched_iou)
    body = timm_backbone(backbone, caffe=caffe, deformable_stages=deformable_stages, gated=False)
    neck = pyramid(body, channels, from_input=False, relu=False)
    head = DistributionHead(channels, num_classes, square_anchors(neck.strides), bins, depth=depth)
    branch = DenseBranch(head, ATSS(topk), matched or CLASS_LOSSES[class_loss], PostProcess(**vars(nms)))
    return PyramidDetector(body, neck, branch)
