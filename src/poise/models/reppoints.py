"""RepPoints (Yang et al. 2019): an object is nine points that find their places, and a box is drawn around them.

A place predicts points twice. The features at the first ones, read by a deformable convolution, say what the object is
and where the points belong. The first points are taught at one place an object; which places answer to an object in
the end is decided by the overlap of their first boxes. Focal loss and smooth L1.
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign.rep_points import FirstBoxOverlap
from poise.criteria.rep_points import RepPointsCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import ClassLossName, Weights, class_supervision, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.head_layers import point_grid
from poise.nn.heads.rep_points import RepPointsHead
from poise.postprocess import PostProcess


def reppoints(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    deformable_stages: Sequence[int] = (),
    group_norm: bool = False,
    channels: int = 256,
    depth: int = 3,
    gradient_scale: float = 0.1,
    class_loss: ClassLossName = "focal",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> PyramidDetector:
    """RepPoints (its moment form) on a feature pyramid.

    With ``class_loss="varifocal"`` classes are taught the IoU of their place's box (VarifocalNet's article, table 1).

    Args:
        deformable_stages: of the backbone (3, 4, 5), with deformable convolutions (DCNv1, as published).
        group_norm: in the pyramid and in the head's towers.
        gradient_scale: the part of the gradient that first points receive for where features are read.
    """
    groups = 32 if group_norm else 0
    body = Backbone(
        backbone,
        (3, 4, 5),
        backbone_weights,
        frozen_stages,
        norm_eval,
        deformable_stages=deformable_stages,
        gated=False,
    )
    neck = pyramid(body, channels, from_input=True, relu=False, groups=groups)
    head = RepPointsHead(channels, num_classes, point_grid(neck.strides, 0.0), depth, groups, gradient_scale)
    criterion = RepPointsCriterion(*class_supervision(class_loss))
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head,
            FirstBoxOverlap(),
            criterion,
            PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
        ),
    )
