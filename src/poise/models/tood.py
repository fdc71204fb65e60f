"""TOOD (Feng et al. 2021): task-aligned one-stage detection.

One tower serves classification and localization, each with its own layer attention; small networks then align scores
and boxes. Task-aligned assignment takes the priors with the largest alignment, score ** alpha * IoU ** beta. The
normalized alignment is also the class target. In the first epochs, while predictions are random, ATSS assigns.
"""

from __future__ import annotations

from poise.assign import ATSS, TaskAligned
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion, focal_of_scores, vfl_of_scores
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, pyramid, timm_backbone
from poise.nn.heads.task_aligned import TaskAlignedHead
from poise.nn.layers import square_anchors
from poise.postprocess import PostProcess
from poise.protocols import Assigner, Criterion
from poise.structures import SwitchAtEpoch

CLASS_LOSSES = {
    "focal": TaskAlignedCriterion(focal_of_scores, hard_labels=True),
    "quality_focal": TaskAlignedCriterion(),
    "varifocal": TaskAlignedCriterion(vfl_of_scores),
}


@flat_options
def tood(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    channels: int = 256,
    depth: int = 6,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    initial_epochs: int = 4,
    class_loss: str = "quality_focal",
    nms: NMSOptions = NMSOptions(),
) -> PyramidDetector:
    """TOOD (its anchor-free form) on a feature pyramid.

    Args:
        depth: layers of the shared tower.
        topk: number of priors of an object with the largest alignment.
        alpha, beta: exponents of score and IoU in the alignment.
        initial_epochs: number of epochs with ATSS and the focal loss.
        class_loss: class loss after these epochs and class target of positives: focal loss (1), quality focal loss or
            varifocal loss (the normalized alignment).
    """
    body = timm_backbone(backbone)
    neck = pyramid(body, channels, from_input=False, relu=False)
    head = TaskAlignedHead(channels, num_classes, square_anchors(neck.strides), depth)
    assigner: SwitchAtEpoch[Assigner] = SwitchAtEpoch(ATSS(9), TaskAligned(topk, alpha, beta), initial_epochs)
    check_choice("class_loss", class_loss, CLASS_LOSSES)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(InitialCriterion(), CLASS_LOSSES[class_loss], initial_epochs)
    return PyramidDetector(
        body, neck, DenseBranch(head, assigner, criterion, PostProcess(**vars(nms), clip_margin=None))
    )
