"""TOOD (Feng et al. 2021): task-aligned one-stage detection.

One tower serves classification and localization, each with its own layer attention; small networks then align scores
and boxes. Task-aligned assignment takes the priors with the largest alignment, score ** alpha * IoU ** beta. The
normalized alignment is also the class target. In the first epochs, while predictions are random, ATSS assigns.
"""

from __future__ import annotations

from poise.assign import ATSS, TaskAligned
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.task_aligned import TaskAlignedHead
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess
from poise.protocols import Assigner, Criterion
from poise.structures import SwitchAtEpoch


def tood(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    channels: int = 256,
    depth: int = 6,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    initial_epochs: int = 4,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 100,
) -> PyramidDetector:
    """TOOD (its anchor-free form) on a feature pyramid.

    Args:
        depth: layers of the shared tower.
        topk: number of priors of an object with the largest alignment.
        alpha, beta: exponents of score and IoU in the alignment.
        initial_epochs: number of epochs with ATSS and the focal loss.
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval)
    neck = pyramid(body, channels, from_input=False, relu=False)
    head = TaskAlignedHead(channels, num_classes, square_anchors(neck.strides), depth)
    assigner: SwitchAtEpoch[Assigner] = SwitchAtEpoch(ATSS(9), TaskAligned(topk, alpha, beta), initial_epochs)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(InitialCriterion(), TaskAlignedCriterion(), initial_epochs)
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head,
            assigner,
            criterion,
            PostProcess(score_threshold, nms_threshold, clip_margin=None, max_detections=max_detections),
        ),
    )
