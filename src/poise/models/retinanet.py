"""RetinaNet (Lin et al. 2017): nine anchors a cell, each told by its greatest overlap, and the focal loss.

An anchor is positive from IoU 0.5, negative below 0.4 and left alone between; every object keeps its best anchors.
Classes are trained on all anchors with the focal loss, box offsets on positives with L1.
"""

from __future__ import annotations

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import ClassLossName, Weights, class_supervision, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.head_layers import retina_anchors
from poise.nn.heads.anchor import AnchorHead
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
    """RetinaNet on a feature pyramid; ``channels`` and ``depth`` size the pyramid and the head's towers.

    With ``class_loss="varifocal"`` classes are taught the IoU of their place's box (VarifocalNet's article, table 1).
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
