"""RetinaNet (Lin et al. 2017): dense detection with the focal loss, on nine anchors per cell.

An anchor is positive with an IoU of at least 0.5, negative below 0.4 and ignored in between; each object also keeps its
best anchors. The focal loss trains the classes of all anchors, the L1 loss the box offsets of positives.
"""

from __future__ import annotations

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.postprocess import PostProcess


@flat_options
def retinanet(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    class_loss: str = "focal",
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """RetinaNet on a feature pyramid.

    Args:
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object; VarifocalNet's article, table 1), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder()
    head = AnchorHead(channels, num_classes, retina_anchors(neck.strides), coder, depth=depth)
    criterion = AnchorCriterion(coder, *class_supervision(class_loss))
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0), criterion, PostProcess(**vars(nms)))
    return PyramidDetector(body, neck, branch)
