"""PAA (Kim and Lee 2020): probabilistic anchor assignment.

Anchors and head are ATSS's, with the predicted IoU of the box instead of the centerness. For each object, the anchors
with the lowest losses are candidates; a mixture of two normal distributions fitted to their losses separates positives
from negatives. In inference, score voting moves each box that survives NMS to the weighted mean of the boxes around it.
"""

from __future__ import annotations

from poise.assign.paa import PAA
from poise.boxes import DeltaCoder
from poise.criteria.paa import PAACriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.centerness import IoUHead, Offsets
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess, topk_priors


def paa(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    voting_sigma: float = 0.025,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """PAA on a feature pyramid.

    Args:
        topk: number of candidates of an object on each level.
        voting_sigma: width of the score voting, exp(-(1 - IoU)^2 / sigma); 0: no voting.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=False, relu=False)
    decoder = Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))
    head = IoUHead(channels, num_classes, square_anchors(neck.strides), decoder, depth)
    postprocess = PostProcess(
        score_threshold,
        nms_threshold,
        preselect=topk_priors,
        min_size=-1.0,
        voting_sigma=voting_sigma,
        max_detections=max_detections,
    )
    return PyramidDetector(body, neck, DenseBranch(head, PAA(topk), PAACriterion(), postprocess))
