"""Libra R-CNN (Pang et al. 2019): balance of samples, of features and of the objective.

Three changes to a detector on a feature pyramid, each of which can be had alone. Regions are sampled evenly over
objects and over how much the negatives overlap them; every pyramid level is given the same refined mean of all levels;
and the box loss lets many accurate boxes weigh against few bad ones.
"""

from __future__ import annotations

from torch import nn

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.region import RegionBranch, RegionPostProcess
from poise.criteria import AnchorCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.faster_rcnn import BOX_LOSSES, SAMPLING, choose, proposal_stage, region_stage
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.nn.necks.balanced_pyramid import BalancedPyramid
from poise.nn.necks.fpn import FPN, SubsampledLevel
from poise.postprocess import PostProcess
from poise.sample import TakeAll, random_sampler


def libra_faster_rcnn(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    hidden: int = 1024,
    sampling: str = "balanced",
    refine: str = "non_local",
    box_loss: str = "balanced_l1",
    anchors: int = 256,
    regions: int = 512,
    proposals: int = 1000,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
    deterministic: bool = False,
) -> PyramidDetector:
    """Faster R-CNN with the three changes.

    Each can be undone: ``sampling="random"``, ``refine="off"`` (``none`` and ``conv`` are weaker refinements),
    ``box_loss="l1"``. The other options are Faster R-CNN's.
    """
    body = Backbone(backbone, (2, 3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    levels = FPN(body.channels, body.strides, channels, SubsampledLevel())
    first = proposal_stage(levels, None if deterministic else random_sampler(anchors, 0.5, 5), proposals)
    sampler = TakeAll() if deterministic else choose("sampling", SAMPLING, sampling)(regions)
    postprocess = RegionPostProcess(score_threshold, nms_threshold, max_detections)
    second = region_stage(levels, num_classes, hidden, sampler, choose("box_loss", BOX_LOSSES, box_loss), postprocess)
    return PyramidDetector(body, balanced(levels, 2, refine), RegionBranch(first, second))


def libra_retinanet(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    refine: str = "non_local",
    box_loss: str = "balanced_l1_0.11",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> PyramidDetector:
    """RetinaNet with balanced features and objective (it samples nothing).

    The published beta of 0.11 gives the smallest errors *more* gradient, not less as the loss is meant to
    (``box_loss="balanced_l1"`` has beta = 1).
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, not caffe, caffe)
    levels = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder()
    head = AnchorHead(channels, num_classes, retina_anchors(levels.strides), coder, depth)
    criterion = AnchorCriterion(coder, offset_loss=choose("box_loss", BOX_LOSSES, box_loss))
    branch = DenseBranch(
        head,
        MaxIoU(0.5, 0.4, 0.0),
        criterion,
        PostProcess(score_threshold, nms_threshold, max_detections=max_detections),
    )
    return PyramidDetector(body, balanced(levels, 1, refine), branch)


def balanced(levels: FPN, gather: int, refine: str) -> nn.Module:
    """The pyramid followed by its balancing at level ``gather``, or without it where ``refine`` is ``off``."""
    return levels if refine == "off" else nn.Sequential(levels, BalancedPyramid(levels.channels, gather, refine))
