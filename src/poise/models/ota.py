"""OTA (Ge et al. 2021): who answers to whom is one transport problem for the whole image.

FCOS's points and head, with the IoU of the box in centerness's place. Objects supply positives, as many as the sum of
their best IoUs; the background supplies the rest; what a place costs an object is the loss that it would have. The
cheapest plan for all objects together settles also the places that several of them want.
"""

from __future__ import annotations

from poise.assign import OTA
from poise.criteria.ota import OTACriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.head_layers import point_grid
from poise.nn.heads.centerness import Distances, IoUHead
from poise.postprocess import PostProcess


def ota(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 20,
    radius: float = 2.5,
    temperature: float = 0.1,
    iterations: int = 50,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """OTA on a feature pyramid.

    Args:
        topk: best IoUs of an object whose sum is the number of its positives.
        radius: strides from an object's center within which places can be taken.
        temperature, iterations: of the transport plan (Sinkhorn's); the less, the harder and the rougher it is.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    neck = pyramid(body, channels, from_input=False, relu=True)
    head = IoUHead(channels, num_classes, point_grid(neck.strides, 0.0), Distances(), depth, tower_bias=True)
    assigner = OTA(topk, radius, temperature=temperature, iterations=iterations)
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head, assigner, OTACriterion(), PostProcess(score_threshold, nms_threshold, max_detections=max_detections)
        ),
    )
