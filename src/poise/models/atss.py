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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.centerness import CenternessHead, Offsets
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess


@flat_options
def atss(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    class_loss: str = "focal",
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """ATSS on a feature pyramid, with ``topk`` candidates per level and object.

    Args:
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object; VarifocalNet's article, table 1), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=False, relu=False)
    decoder = Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))
    head = CenternessHead(channels, num_classes, square_anchors(neck.strides), decoder, depth=depth)
    element, soft_label = class_supervision(class_loss)
    criterion = replace(atss_criterion(), class_loss=element, soft_label=soft_label)
    branch = DenseBranch(head, ATSS(topk), criterion, PostProcess(**vars(nms)))
    return PyramidDetector(body, neck, branch)
