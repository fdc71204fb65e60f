"""RepPoints (Yang et al. 2019): an object is represented by nine points, and a box is computed from them.

Each prior predicts its points twice. A deformable convolution reads features at the initial points; from them come the
class scores and the refined points. One prior per object supervises the initial points; the IoU of the initial boxes
then assigns priors to objects for classes and refined points. Focal loss and smooth L1 loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from poise.assign.rep_points import FirstBoxOverlap
from poise.criteria.rep_points import RepPointsCriterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import class_supervision, pyramid, timm_backbone
from poise.nn.heads.rep_points import RepPointsHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


@flat_options
def reppoints(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    deformable_stages: Sequence[int] = (),
    group_norm: bool = False,
    channels: int = 256,
    depth: int = 3,
    gradient_scale: float = 0.1,
    class_loss: str = "focal",
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
) -> PyramidDetector:
    """RepPoints (the moment-based form) on a feature pyramid.

    Args:
        deformable_stages: stages of the backbone (of 3, 4, 5) with DCNv1, as published.
        group_norm: group norm in the pyramid and in the towers of the head.
        class_loss: class loss and class target of positives: focal loss (1), quality focal loss, varifocal loss (the
            IoU of the refined box with its object; VarifocalNet's article, table 1), or a loss of matched labels
            such as ``matchability(gamma=1.5)`` (docs/criteria.md).
        gradient_scale: factor of the gradient that initial points receive as offsets of the deformable convolution.
    """
    groups = 32 if group_norm else 0
    body = timm_backbone(backbone, deformable_stages=deformable_stages, gated=False)
    neck = pyramid(body, channels, from_input=True, relu=False, groups=groups)
    head = RepPointsHead(
        channels, num_classes, point_grid(neck.strides, 0.0), depth, groups=groups, gradient_scale=gradient_scale
    )
    criterion = RepPointsCriterion(*class_supervision(class_loss))
    return PyramidDetector(
        body,
        neck,
        DenseBranch(head, FirstBoxOverlap(), criterion, PostProcess(**vars(nms)), initial_criterion=criterion.initial),
    )
