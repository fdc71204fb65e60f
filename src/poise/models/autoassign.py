"""AutoAssign (Zhu et al. 2020): the assignment is learned with the detector.

Every prior inside an object, on every level, is a candidate of it. The weight of a candidate is its confidence times a
learned Gaussian around the center of the object's class (the center prior). The loss of an object is -ln of the
weighted mean of its candidates' confidences, so that the same loss trains the weights. The negative weight of a prior
decreases with the IoU of its box.
"""

from __future__ import annotations

from typing import Literal

from poise.assign.auto_assign import AutoAssign
from poise.criteria import fcos_criterion
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, check_choice, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.auto_assign import AutoAssignHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess

WeightsName = Literal["likelihood", "detached", "loss"]
WEIGHTS: dict[str, dict[str, bool]] = {
    "likelihood": {},
    "detached": {"detached": True},
    "loss": {"detached": True, "geometric": True},
}


def autoassign(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    weights: WeightsName = "likelihood",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """AutoAssign on a feature pyramid; its published checkpoints have a ``caffe`` backbone.

    Args:
        weights: "likelihood" weights the likelihoods of an object's candidates and trains the weights, as in the
            article; "detached" stops the gradient of the weights; "loss" also moves them to the losses of the
            candidates, as most soft assigners have it (DW's article, section 4.1).
    """
    check_choice("weights", weights, WEIGHTS)
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=True, relu=True)
    head = AutoAssignHead(channels, num_classes, point_grid(neck.strides, 0.0), depth)
    branch = DenseBranch(
        head,
        AutoAssign(head.center_prior, **WEIGHTS[weights]),
        AutoAssignCriterion(),
        PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
        hard_criterion=fcos_criterion(),
    )
    return PyramidDetector(body, neck, branch)
