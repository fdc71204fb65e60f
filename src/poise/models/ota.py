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
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import pyramid, timm_backbone
from poise.nn.heads.centerness import Distances, IoUHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


@flat_options
def ota(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    topk: int = 20,
    radius: float = 2.5,
    temperature: float = 0.1,
    iterations: int = 50,
    openable_sides: bool = False,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """OTA on a feature pyramid.

    Args:
        topk: number of largest IoUs of an object whose sum is the number of its positives (dynamic k).
        radius: strides from an object's center within which points are candidates.
        temperature, iterations: of the Sinkhorn algorithm; smaller temperatures give harder plans.
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=False, relu=True)
    grid, decoder = point_grid(neck.strides, 0.0), Distances(openable_sides)
    head = IoUHead(channels, num_classes, grid, decoder, depth=depth, tower_bias=True)
    assigner = OTA(topk, radius, temperature=temperature, iterations=iterations)
    return PyramidDetector(body, neck, DenseBranch(head, assigner, OTACriterion(), PostProcess(**vars(nms))))
