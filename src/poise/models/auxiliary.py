"""Auxiliary branches of Co-DETR: heads that give every object many places, on the pyramid over an encoder's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from poise import losses
from poise.assign import ATSS, MaxIoU
from poise.boxes import DeltaCoder
from poise.branches import DenseBranch
from poise.branches.proposals import Propose, ProposeByImage
from poise.branches.region import ProposalStage, RegionBranch, RegionPostProcess, RegionStage
from poise.criteria import AnchorCriterion, DistributionCriterion, ProposalCriterion, RegionBoxCriterion, atss_criterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors.collaboration import (
    BoxAndFeatures,
    BoxContent,
    Cells,
    Collaboration,
    Downsample,
    Lender,
    Reader,
    Regions,
)
from poise.models.parts import check_choice
from poise.nn.grids import retina_anchors, squares
from poise.nn.heads.anchor import AnchorHead
from poise.nn.heads.centerness import CenternessHead, Offsets
from poise.nn.heads.distribution import DistributionHead
from poise.nn.heads.region import ProposalHead, RegionAlign, RegionHead
from poise.nn.heads.star import StarConv, StarHead, StarRefinement, strides_reach
from poise.postprocess import PostProcess
from poise.sample import TakeAll, random_sampler
from poise.sample.positives_first import PositivesFirst

Built = tuple[nn.Module, Reader]
FINEST = 14.0  # px a pixel of the finest stride: regions up to twice this side are read off the finest level


def faster_rcnn_branch(channels: int, strides: Sequence[int], num_classes: int, deterministic: bool) -> Built:
    """RPN with RetinaNet's anchors and a second stage whose boxes are compared decoded (GIoU, ten times)."""
    first, second = DeltaCoder(), DeltaCoder((0.1, 0.1, 0.2, 0.2))
    align = RegionAlign(strides[:-1], finest=FINEST * strides[0])
    proposal = ProposalStage(
        ProposalHead(channels, retina_anchors(strides), first),
        MaxIoU(0.7, 0.3, 0.3, divisor=1),
        TakeAll() if deterministic else random_sampler(256, 0.5),
        ProposalCriterion(first),
        ProposeByImage(4000, 1000) if deterministic else Propose(4000, 1000),
        ProposeByImage(1000, 1000),
    )
    region = RegionStage(
        RegionHead(channels, num_classes, align, second),
        MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0),
        TakeAll() if deterministic else random_sampler(512, 0.25),
        RegionBoxCriterion(second, weight=10.0),
        RegionPostProcess(0.0, 0.5),
    )
    return RegionBranch(proposal, region), Regions(align)


def atss_branch(channels: int, strides: Sequence[int], num_classes: int, deterministic: bool) -> Built:
    """ATSS with towers of one layer."""
    decoder = Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))
    head = CenternessHead(channels, num_classes, squares(strides), decoder, depth=1)
    return DenseBranch(head, ATSS(9, divisor=1), atss_criterion(), PostProcess(0.0, 0.6)), Cells()


def retinanet_branch(channels: int, strides: Sequence[int], num_classes: int, deterministic: bool) -> Built:
    """RetinaNet with towers of one layer."""
    coder, grid = DeltaCoder(), retina_anchors(strides)
    head = AnchorHead(channels, num_classes, grid, coder, depth=1)
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0, divisor=1), AnchorCriterion(coder), PostProcess(0.0, 0.5))
    return branch, Cells(grid.count)


def gfl_branch(channels: int, strides: Sequence[int], num_classes: int, deterministic: bool) -> Built:
    """GFL with towers of one layer."""
    head = DistributionHead(channels, num_classes, squares(strides), 17, depth=1)
    return DenseBranch(head, ATSS(9, divisor=1), DistributionCriterion(), PostProcess(0.0, 0.6)), Cells()


def vfnet_branch(channels: int, strides: Sequence[int], num_classes: int, deterministic: bool) -> Built:
    """VarifocalNet with towers of one layer."""
    refinement = StarRefinement(channels, len(strides), StarConv(channels))
    reach = strides_reach(strides)
    head = StarHead(channels, num_classes, squares(strides), StarConv(channels), refinement, 1, reach=reach)
    criterion = VarifocalCriterion(losses.varifocal)
    return DenseBranch(head, ATSS(9, divisor=1), criterion, PostProcess(0.0, 0.6)), Cells()


AUXILIARY: dict[str, Callable[[int, Sequence[int], int, bool], Built]] = {
    "faster_rcnn": faster_rcnn_branch,
    "atss": atss_branch,
    "retinanet": retinanet_branch,
    "gfl": gfl_branch,
    "vfnet": vfnet_branch,
}


def collaboration(
    heads: str,
    channels: int,
    strides: Sequence[int],
    num_classes: int,
    decoder_layers: int,
    weight: float,
    sampler: PositivesFirst,
    features: bool,
    deterministic: bool,
    wide: bool = False,
) -> Collaboration | None:
    """Branches by name on the memory's levels and one coarser; None where no head is named.

    Args:
        heads: names with commas between, for example ``faster_rcnn,atss``.
        weight: the article's lambda_2, against the decoder's losses of all its layers.
        features: lent queries also hold what the branch saw, and their position is fixed (Co-Deformable-DETR).
        wide: see ``BoxAndFeatures``.
    """
    levels: tuple[int, ...] = (*strides, 2 * strides[-1])
    lenders: list[Lender] = []
    names = [name.strip() for name in heads.split(",") if name.strip()]
    for i, name in enumerate(names):
        check_choice("heads", name, AUXILIARY)
        branch, read = AUXILIARY[name](channels, levels, num_classes, deterministic)
        make = BoxAndFeatures(channels, wide) if features else BoxContent(channels)
        again = names[:i].count(name)
        lenders.append(Lender(f"{name}{again + 1}" if again else name, branch, make, sampler, read))
    return Collaboration(Downsample(channels), lenders, weight * decoder_layers) if lenders else None
