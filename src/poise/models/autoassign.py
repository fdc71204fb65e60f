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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, pyramid, timm_backbone
from poise.nn.heads.auto_assign import AutoAssignHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess

WeightsName = Literal["likelihood", "detached", "loss"]
WEIGHTS: dict[str, dict[str, bool]] = {
    "likelihood": {},
    "detached": {"detached": True},
    "loss": {"detached": True, "geometric": True},
}


@flat_options
def autoassign(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    weights: WeightsName = "likelihood",
    openable_sides: bool = False,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """AutoAssign on a feature pyramid; its published checkpoints have a ``caffe`` backbone.

    Args:
        weights: "likelihood" weights the likelihoods of an object's candidates and trains the weights, as in the
            article; "detached" stops the gradient of the weights; "loss" also moves them to the losses of the
            candidates, as most soft assigners have it (DW's article, section 4.1).
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    check_choice("weights", weights, WEIGHTS)
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=True, relu=True)
    grid = point_grid(neck.strides, 0.0)
    head = AutoAssignHead(channels, num_classes, grid, depth, openable_sides=openable_sides)
    branch = DenseBranch(
        head,
        AutoAssign(head.center_prior, **WEIGHTS[weights]),
        AutoAssignCriterion(),
        PostProcess(**vars(nms)),
        hard_criterion=fcos_criterion(),
    )
    return PyramidDetector(body, neck, branch)
