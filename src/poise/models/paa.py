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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.centerness import IoUHead, Offsets
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess, topk_priors


@flat_options
def paa(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 9,
    voting_sigma: float = 0.025,
    class_loss: str = "focal",
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """PAA on a feature pyramid.

    Args:
        topk: number of candidates of an object on each level.
        voting_sigma: width of the score voting, exp(-(1 - IoU)^2 / sigma); 0: no voting.
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md). The
            assignment is by the focal loss with all of them.
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=False, relu=False)
    decoder = Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))
    head = IoUHead(channels, num_classes, square_anchors(neck.strides), decoder, depth=depth)
    postprocess = PostProcess(**vars(nms), preselect=topk_priors, min_size=-1.0, voting_sigma=voting_sigma)
    element, soft_label = class_supervision(class_loss)
    criterion = PAACriterion(class_loss=element, soft_label=soft_label)
    return PyramidDetector(body, neck, DenseBranch(head, PAA(topk), criterion, postprocess))
