"""OTA (Ge et al. 2021): assignment as an optimal transport problem of the whole image.

Points and head are FCOS's, with the predicted IoU of the box instead of the centerness. Each object supplies as many
positive labels as the sum of its best IoUs (dynamic k), the background supplies the rest, and the cost of assigning a
point to an object is the loss it would have. The transport plan with the lowest total cost also resolves conflicts
between objects.
"""

from __future__ import annotations

from poise.assign import OTA
from poise.criteria.ota import OTACriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.centerness import Distances, IoUHead
from poise.nn.layers import point_grid
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
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        radius: strides from an object's center within which points are candidates.
        temperature, iterations: of the Sinkhorn algorithm; smaller temperatures give harder plans.
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
