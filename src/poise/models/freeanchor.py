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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import pyramid, timm_backbone
from poise.nn.heads.anchor import AnchorHead
from poise.nn.layers import retina_anchors
from poise.postprocess import PostProcess


@flat_options
def freeanchor(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 50,
    threshold: float = 0.6,
    deterministic: bool = False,
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """FreeAnchor on a feature pyramid.

    Args:
        topk: number of anchors in an object's bag.
        threshold: IoU from which the box of an anchor reduces its negative weight.
        deterministic: select among anchors with equal IoU as the original code does, for comparing numbers.
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    head = AnchorHead(channels, num_classes, retina_anchors(neck.strides), coder, depth=depth)
    choose = as_topk if deterministic else lowest_first
    assigner = FreeAnchor(topk, choose, threshold, coder, offsets=offsets_of_head)
    return PyramidDetector(
        body,
        neck,
        DenseBranch(
            head, assigner, FreeAnchorCriterion(), PostProcess(**vars(nms)), hard_criterion=AnchorCriterion(coder)
        ),
    )
