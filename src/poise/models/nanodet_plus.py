"""NanoDet-Plus (RangiLyu 2021): a detector with about a million parameters for CPUs and phones.

ShuffleNetV2 and Ghost-PAN feed a depthwise head that predicts classes and distributions of box distances, as in GFL.
The dynamic soft label assigner (DSLA) assigns by the cost of predictions, but a light head predicts poorly at the start
of training. The predictions that the assigner reads are therefore those of the assign guidance module (AGM), a copy of
the neck with a plain convolutional head, in training only. Both heads are trained with the same assignment. After
``detach_epoch`` epochs gradients of the guide no longer reach backbone and neck.
"""

from __future__ import annotations

import copy

from poise.assign import DynamicSoftLabel
from poise.criteria import nanodet_plus_criterion
from poise.detectors import AssignGuidanceModule, DenseBranch, GuidedDetector, PyramidDetector
from poise.models.groups import NMSOptions, Weights
from poise.models.options import flat_options
from poise.nn.activations import with_leaky_activations
from poise.nn.backbones.shufflenet import ShuffleNetV2
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.distribution import DistributionHead, LightHead
from poise.nn.layers import point_grid
from poise.nn.necks.ghost_pan import GhostPAN
from poise.postprocess import PostProcess
from poise.structures import SwitchAtEpoch


@flat_options
def nanodet_plus(
    num_classes: int,
    *,
    backbone: str = "shufflenetv2_1.0x",
    backbone_weights: Weights = None,
    channels: int = 96,
    depth: int = 2,
    guide_depth: int = 4,
    detach_epoch: int = 10,
    topk: int = 13,
    iou_weight: float = 3.0,
    distance_alpha: float = 10.0,
    distance_beta: float | None = None,
    bins: int = 8,
    nms: NMSOptions = NMSOptions(),
) -> GuidedDetector | PyramidDetector:
    """NanoDet-Plus.

    Args:
        guide_depth: convolutions in each tower of the guide; 0 for no guide: the assigner then reads the head's own
            predictions, which is much faster and sufficient where they are good from the start (fine-tuning).
        backbone: ``shufflenetv2_`` with 0.5x, 1.0x, 1.5x or 2.0x, or the name of a timm model, for example
            ``tf_efficientnet_lite0``.
        detach_epoch: epoch from which gradients of the guide stop before backbone and neck; 0 for the whole training.
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        iou_weight: weight of -ln(IoU) in the cost of a pair, lambda of the article.
        distance_alpha, distance_beta: of the distance cost ``alpha ** (distance - beta)``, with the distance of a prior
            from the center of the object in strides; without ``distance_beta`` there is no such cost.
    """
    body = light_backbone(backbone, backbone_weights)
    neck = GhostPAN(body.channels, body.strides, channels)
    grid = point_grid(neck.strides, offset=0.0)
    head = LightHead(channels, num_classes, grid, bins, depth=depth)
    assigner = DynamicSoftLabel(topk, iou_weight, distance_alpha, distance_beta)
    branch = DenseBranch(head, assigner, nanodet_plus_criterion(), PostProcess(**vars(nms), topk=None))
    if not guide_depth:
        return PyramidDetector(body, neck, branch)
    guide_head = with_leaky_activations(DistributionHead(2 * channels, num_classes, grid, bins, depth=guide_depth))
    return GuidedDetector(
        body,
        neck,
        branch,
        AssignGuidanceModule(copy.deepcopy(neck), guide_head),
        detached=SwitchAtEpoch(False, True, detach_epoch),
    )


def light_backbone(name: str, weights: Weights) -> ShuffleNetV2 | Backbone:
    """Return ShuffleNetV2 or any timm network, with all layers trained."""
    family, _, width = name.partition("_")
    if family == "shufflenetv2":
        return ShuffleNetV2(width, weights)
    return Backbone(name, (3, 4, 5), weights, frozen_stages=-1, norm_eval=False)
