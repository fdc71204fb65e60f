"""FreeAnchor (Zhang et al. 2019): RetinaNet whose objects learn which anchors to match.

The fifty anchors that overlap an object most are its bag. They are not told positive or negative: the loss asks that
the bag as a whole finds the object, by a mean that turns from all its anchors to the best one while training goes on.
Anchors whose boxes find an object of a class are spared as its negatives.
"""

from __future__ import annotations

from poise.assign.free_anchor import FreeAnchor, as_topk, lowest_first
from poise.boxes import DeltaCoder
from poise.criteria.bags import FreeAnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.head_layers import retina_anchors
from poise.nn.heads.anchor import AnchorHead
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
        topk: anchors in an object's bag.
        threshold: IoU above which an anchor's box begins to find an object.
        deterministic: choose among anchors with equal IoU as the original does, for comparing numbers.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    head = AnchorHead(channels, num_classes, retina_anchors(neck.strides), coder, depth)
    choose = as_topk if deterministic else lowest_first
    assigner = FreeAnchor(topk, choose, threshold, coder)
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head,
            assigner,
            FreeAnchorCriterion(),
            PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
        ),
    )
