"""Faster R-CNN (Ren et al. 2015) on a feature pyramid (FPN: Lin et al. 2017), and Fast R-CNN (Girshick 2015).

The region proposal network predicts objectness and a box for three anchors of each cell. The best proposals are read
from the pyramid by RoIAlign as 7x7 features, which two fully connected layers classify and refine. Both stages are
assigned by
IoU and trained on a sample: 256 anchors, at most half of them positive, and 512 regions, at most a quarter.
"""

from __future__ import annotations

from functools import partial

from poise import losses
from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.proposals import ProposalPostProcessByImage
from poise.branches.region import ProposalPostProcess, ProposalStage, RegionBranch, RegionStage
from poise.criteria.region import ElementLoss, ProposalCriterion, RegionCriterion
from poise.detectors import PyramidDetector
from poise.detectors.region import RegionDetector
from poise.models.groups import BackboneOptions, BoxLossOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, refuse_without_effect, timm_backbone
from poise.nn.heads.region import ProposalHead, RegionHead
from poise.nn.kernels.roi_align import RegionAlign
from poise.nn.layers import AnchorGrid
from poise.nn.necks.feature_pyramids import FPN, SubsampledLevel
from poise.postprocess import RegionPostProcess
from poise.sample import Sampler, TakeAll, random_sampler

BOX_LOSSES: dict[str, ElementLoss] = {
    "l1": losses.l1,
    "smooth_l1": losses.smooth_l1,
    "balanced_l1": losses.balanced_l1,
}


@flat_options
def faster_rcnn(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    hidden: int = 1024,
    box_loss: BoxLossOptions = BoxLossOptions(),
    anchors: int = 256,
    regions: int = 512,
    proposals: int = 1000,
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
    deterministic: bool = False,
) -> PyramidDetector:
    """Build Faster R-CNN on a feature pyramid.

    Args:
        caffe: the stride of a stage is in its first 1x1 convolution (backbone weights converted from Caffe).
        hidden: width of the fully connected layers.
        anchors, regions: samples of the two stages in an image.
        proposals: of an image, from the first stage to the second.
        deterministic: train on all anchors and regions instead of samples.
    """
    body = timm_backbone(backbone, (2, 3, 4, 5), caffe=caffe)
    neck = FPN(body.channels, body.strides, channels, SubsampledLevel())
    first = proposal_stage(neck, None if deterministic else random_sampler(anchors, 0.5), proposals)
    sampler = TakeAll() if deterministic else random_sampler(regions)
    postprocess = RegionPostProcess(**vars(nms))
    loss = region_box_loss(**vars(box_loss))
    second = region_stage(neck, num_classes, hidden, sampler, box_loss=loss, postprocess=postprocess)
    return PyramidDetector(body, neck, RegionBranch(first, second))


@flat_options
def fast_rcnn(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    caffe: bool = False,
    channels: int = 256,
    hidden: int = 1024,
    box_loss: BoxLossOptions = BoxLossOptions(),
    regions: int = 512,
    nms: NMSOptions = NMSOptions(nms_threshold=0.5),
    deterministic: bool = False,
) -> RegionDetector:
    """Build Fast R-CNN: the second stage alone, on proposals that come with the batch.

    ``network(Batch(pixels, truth, indices, proposals=proposals), progress)`` trains, ``network.predict(pixels, sizes,
    proposals)`` detects; ``poise.detection_model.proposals_from_boxes`` makes the proposals. Arguments are those of
    ``faster_rcnn``.
    """
    body = timm_backbone(backbone, (2, 3, 4, 5), caffe=caffe)
    neck = FPN(body.channels, body.strides, channels, SubsampledLevel())
    sampler = TakeAll() if deterministic else random_sampler(regions)
    postprocess = RegionPostProcess(**vars(nms))
    loss = region_box_loss(**vars(box_loss))
    stage = region_stage(neck, num_classes, hidden, sampler, box_loss=loss, postprocess=postprocess)
    return RegionDetector(body, neck, stage)


def region_box_loss(
    box_loss: str, l1_alpha: float | None, l1_gamma: float | None, l1_beta: float | None
) -> ElementLoss:
    """Return the box loss of ``BoxLossOptions``, with the parameters that are not None.

    Raises:
        ValueError: the loss is unknown, does not have a parameter that is given, or the parameter is not positive.
    """
    check_choice("box_loss", box_loss, BOX_LOSSES)
    if box_loss != "balanced_l1":
        refuse_without_effect(f"box_loss='{box_loss}' has no such parameter", l1_alpha=l1_alpha, l1_gamma=l1_gamma)
    if box_loss == "l1":
        refuse_without_effect("box_loss='l1' has no such parameter", l1_beta=l1_beta)
    parameters = {"alpha": l1_alpha, "gamma": l1_gamma, "beta": l1_beta}
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if value <= 0:
            raise ValueError(f"l1_{name}={value}: must be greater than 0")
    return partial(BOX_LOSSES[box_loss], **given) if given else BOX_LOSSES[box_loss]


def proposal_stage(neck: FPN, sampler: Sampler | None, proposals: int = 1000) -> ProposalStage:
    """Build the first stage: anchors of eight strides and three shapes; positive from IoU 0.7, negative below 0.3.

    Every object keeps the anchors of its highest IoU. Without a sampler, all anchors train the stage, and proposals
    have the order of MMDetection.
    """
    coder = DeltaCoder()
    form = ProposalPostProcess if sampler else ProposalPostProcessByImage
    return ProposalStage(
        ProposalHead(neck.channels, AnchorGrid(neck.strides, (8.0,), (0.5, 1.0, 2.0)), coder),
        MaxIoU(0.7, 0.3, 0.3),
        sampler or TakeAll(),
        ProposalCriterion(coder),
        training_postprocess=form(2000, proposals),
        inference_postprocess=ProposalPostProcessByImage(1000, proposals),
    )


def region_stage(
    neck: FPN, num_classes: int, hidden: int, sampler: Sampler, *, box_loss: ElementLoss, postprocess: RegionPostProcess
) -> RegionStage:
    """Build the second stage on all levels but the coarsest; regions are positive from IoU 0.5, otherwise negative."""
    coder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    head = RegionHead(neck.channels, num_classes, RegionAlign(neck.strides[:-1]), coder, hidden=hidden)
    assigner = MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0)
    return RegionStage(head, assigner, sampler, RegionCriterion(coder, box_loss), postprocess=postprocess)
