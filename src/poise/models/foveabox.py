"""FoveaBox (Kong et al. 2019): anchor-free detection from the central region of each object.

The cells in the shrunken central region (fovea) of an object are positive, on all levels whose size range includes the
object, often two or three. They predict the logarithms of the distances to the sides of the box. Focal loss and smooth
L1 loss.
"""

from __future__ import annotations

from poise.assign import Fovea
from poise.boxes import LogDistances
from poise.criteria.fovea import FoveaCriterion, fovea_focal
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.fovea import FoveaHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


@flat_options
def foveabox(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    channels: int = 256,
    depth: int = 4,
    sigma: float = 0.4,
    class_loss: str = "focal",
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """FoveaBox (without feature alignment) on a feature pyramid; ``sigma`` is the relative size of the central region.

    Args:
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the predicted box with its object; VarifocalNet's article, table 1), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
    """
    body = timm_backbone(backbone)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = LogDistances()
    head = FoveaHead(channels, num_classes, point_grid(neck.strides, 0.5), coder, depth=depth)
    criterion = FoveaCriterion(coder, *class_supervision(class_loss, fovea_focal))
    branch = DenseBranch(head, Fovea(sigma), criterion, PostProcess(**vars(nms), clip_margin=1.0))
    return PyramidDetector(body, neck, branch)
