"""FreeAnchor (Zhang et al. 2019): RetinaNet with learned matching of anchors to objects.

The fifty anchors with the largest IoU with an object are its bag. No anchor is positive or negative by itself: the loss
is -ln of the likelihood that the bag detects the object, a mean-max function that changes during training from the mean
over all anchors to the best anchor. The negative weight of an anchor decreases with the IoU of its box.
"""

from __future__ import annotations

from poise.assign.free_anchor import FreeAnchor, as_topk, lowest_first, offsets_of_head
from poise.boxes import DeltaCoder
from poise.criteria import AnchorCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.postprocess import PostProcess


def freeanchor(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 50,
    threshold: float = 0.6,
    deterministic: bool = False,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> PyramidDetector:
    """FreeAnchor on a feature pyramid.

    Args:
        topk: number of anchors in an object's bag.
        threshold: IoU from which the box of an anchor reduces its negative weight.
        deterministic: select among anchors with equal IoU as the original code does, for comparing numbers.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    head = AnchorHead(channels, num_classes, retina_anchors(neck.strides), coder, depth)
    choose = as_topk if deterministic else lowest_first
    assigner = FreeAnchor(topk, choose, threshold, coder, offsets=offsets_of_head)
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head,
            assigner,
            FreeAnchorCriterion(),
            PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
            hard_criterion=AnchorCriterion(coder),
        ),
    )
