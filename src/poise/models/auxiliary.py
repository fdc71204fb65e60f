"""Auxiliary branches of Co-DETR by name: heads that give every object many places, on the pyramid over the memory.

Every branch maps ``(maps, truth, progress)`` to a step's losses and matches and has ``predict``; what it found
positive in its last match is lent. So any branch of poise can help: those of dense heads are in ``auxiliary_dense``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.proposals import Propose, ProposeByImage
from poise.branches.region import ProposalStage, RegionBranch, RegionPostProcess, RegionStage
from poise.criteria import ProposalCriterion, RegionBoxCriterion
from poise.detectors.collaboration import AuxiliaryHead, Collaboration, Downsample, FromOneScale, Regions
from poise.models.auxiliary_dense import DENSE, AuxiliarySpec, Built
from poise.models.parts import check_choice
from poise.nn.head_layers import retina_anchors
from poise.nn.heads.region import ProposalHead, RegionHead
from poise.nn.roi_align import RegionAlign
from poise.sample import TakeAll, random_sampler
from poise.sample.positives_first import PositivesFirst

FINEST = 14.0  # px a pixel of the finest stride: regions up to twice this side are read off the finest level


def faster_rcnn_branch(site: AuxiliarySpec) -> Built:
    """RPN with RetinaNet's anchors and a second stage whose boxes are compared decoded (GIoU, ten times).

    Positive are the sampled regions that overlap an object by half, the objects themselves among them.
    """
    convs = site.region_convs
    first, second = DeltaCoder(), DeltaCoder((0.05, 0.05, 0.1, 0.1) if convs else (0.1, 0.1, 0.2, 0.2))
    align = RegionAlign(site.strides[:-1], finest_scale=FINEST * site.strides[0])
    proposal = ProposalStage(
        ProposalHead(site.channels, retina_anchors(site.strides), first),
        MaxIoU(0.7, 0.3, 0.3, divisor=1),
        TakeAll() if site.deterministic else random_sampler(256, 0.5),
        ProposalCriterion(first),
        ProposeByImage(4000, 1000) if site.deterministic else Propose(4000, 1000),
        ProposeByImage(1000, 1000),
    )
    region = RegionStage(
        RegionHead(
            site.channels,
            site.num_classes,
            align,
            second,
            hidden=site.region_hidden,
            class_agnostic=convs > 0,
            convs=convs,
        ),
        MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0),
        TakeAll() if site.deterministic else random_sampler(site.regions, 0.25),
        RegionBoxCriterion(second, box_weight=10.0),
        RegionPostProcess(0.0, 0.5),
    )
    return RegionBranch(proposal, region), Regions(align)


AUXILIARY: dict[str, Callable[[AuxiliarySpec], Built]] = {"faster_rcnn": faster_rcnn_branch, **DENSE}


def collaboration(
    heads: str,
    site: AuxiliarySpec,
    make: Callable[[], nn.Module],
    sampler: PositivesFirst,
    weight: float,
    auxiliary_query_weight: float,
    adapter: nn.Module | None = None,
) -> Collaboration | None:
    """Branches by name on the memory's levels and coarser ones; None where no head is named.

    Args:
        heads: names with commas between, for example ``faster_rcnn,atss``; a name may come several times.
        make: of each branch, what makes queries of its positives.
        weight: of the branches' losses (the article's lambda_2 times the decoder's layers).
        auxiliary_query_weight: of the losses of the queries that they lend (the article's lambda_1).
        adapter: from the memory's maps to the branches'; by default they get one coarser map more.
    """
    lenders: list[AuxiliaryHead] = []
    names = [name.strip() for name in heads.split(",") if name.strip()]
    for i, name in enumerate(names):
        check_choice("heads", name, AUXILIARY)
        branch, read = AUXILIARY[name](site)
        again = names[:i].count(name)
        shown = f"{name}{again + 1}" if again else name
        lenders.append(AuxiliaryHead(shown, branch, make(), sampler, read, auxiliary_query_weight))
    return Collaboration(adapter or Downsample(site.channels), lenders, weight) if lenders else None


def one_scale_collaboration(
    heads: str, channels: int, num_classes: int, decoder_layers: int, make: Callable[[], nn.Module], deterministic: bool
) -> Collaboration | None:
    """The article's form for encoders of one map of stride 32: branches on strides 8 to 128, lambdas 1 and 2."""
    site = AuxiliarySpec(channels, (8, 16, 32, 64, 128), num_classes, deterministic)
    sampler = PositivesFirst(random=not deterministic)
    return collaboration(heads, site, make, sampler, 2.0 * decoder_layers, 1.0, FromOneScale(channels))
