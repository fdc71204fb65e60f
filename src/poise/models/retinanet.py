"""RetinaNet (Lin et al. 2017): dense detection with the focal loss, on nine anchors per cell.

An anchor is positive with an IoU of at least 0.5, negative below 0.4 and ignored in between; each object also keeps its
best anchors. The focal loss trains the classes of all anchors, the L1 loss the box offsets of positives.
"""

from __future__ import annotations

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import ClassLossName, Weights, class_supervision, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.postprocess import PostProcess


def retinanet(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    class_loss: ClassLossName = "focal",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> PyramidDetector:
    """RetinaNet on a feature pyramid.

    With ``class_loss="varifocal"`` the class target is the IoU of the prior's box (VarifocalNet's article, table 1).
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder()
    head = AnchorHead(channels, num_classes, retina_anchors(neck.strides), coder, depth)
    criterion = AnchorCriterion(coder, *class_supervision(class_loss))
    branch = DenseBranch(
        head,
        MaxIoU(0.5, 0.4, 0.0),
        criterion,
        PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
    )
    return PyramidDetector(body, neck, branch)
