"""FCOS (Tian et al. 2019): points near an object's center are assigned to it, and centerness ranks their boxes.

This is the improved form of the original code: center sampling within 1.5 strides of the object's center, on the level
for its size; distances in strides; centerness from the regression tower; GIoU loss.
"""

from __future__ import annotations

from dataclasses import replace

from poise.assign import CenterRegion
from poise.criteria import fcos_criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.centerness import CenternessHead, Distances
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


@flat_options
def fcos(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    depth: int = 4,
    radius: float = 1.5,
    class_loss: str = "focal",
    openable_sides: bool = False,
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """FCOS on a feature pyramid.

    Args:
        radius: of center sampling, in strides; 0: the whole object.
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
        openable_sides: let the gradient reopen box sides that the published ReLU has closed (set by fine-tuning).
    """
    body = timm_backbone(backbone, caffe=caffe)
    neck = pyramid(body, channels, from_input=False, relu=True)
    grid, decoder = point_grid(neck.strides, 0.5), Distances(openable_sides)
    head = CenternessHead(channels, num_classes, grid, decoder, depth=depth, tower_bias=True)
    element, soft_label = class_supervision(class_loss)
    criterion = replace(fcos_criterion(), class_loss=element, soft_label=soft_label)
    branch = DenseBranch(head, CenterRegion(radius), criterion, PostProcess(**vars(nms)))
    return PyramidDetector(body, neck, branch)
