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
from poise.models.parts import ClassLossName, Weights, class_supervision, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.nn.heads.fovea import FoveaHead
from poise.nn.layers import point_grid
from poise.postprocess import PostProcess


def foveabox(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    channels: int = 256,
    depth: int = 4,
    sigma: float = 0.4,
    class_loss: ClassLossName = "focal",
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
) -> PyramidDetector:
    """FoveaBox (without feature alignment) on a feature pyramid; ``sigma`` is the relative size of the central region.

    With ``class_loss="varifocal"`` the class target is the IoU of the prior's box (VarifocalNet's article, table 1).
    """
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval)
    neck = pyramid(body, channels, from_input=True, relu=False)
    coder = LogDistances()
    head = FoveaHead(channels, num_classes, point_grid(neck.strides, 0.5), coder, depth)
    criterion = FoveaCriterion(coder, *class_supervision(class_loss, fovea_focal))
    branch = DenseBranch(
        head,
        Fovea(sigma),
        criterion,
        PostProcess(score_threshold, nms_threshold, clip_margin=1.0, max_detections=max_detections),
    )
    return PyramidDetector(body, neck, branch)
