"""Auxiliary heads of Co-DETR by name: branches with one-to-many assignment on a pyramid of the encoder's output.

Any branch of poise can be one: ``(maps, truth, progress) -> StepOutput``, with ``predict``. Those of dense heads are in
``auxiliary_dense``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from poise.assign import MaxIoU
from poise.boxes import DeltaCoder
from poise.branches.proposals import ProposalPostProcessByImage
from poise.branches.region import ProposalPostProcess, ProposalStage, RegionBranch, RegionStage
from poise.criteria import ProposalCriterion, RegionBoxCriterion
from poise.detectors.collaboration import (
    AuxiliaryHead,
    CoarserLevelAdapter,
    Collaboration,
    PositiveQuerySampler,
    RegionFeatures,
    SingleScaleAdapter,
)
from poise.models.auxiliary_dense import DENSE, AuxiliaryBranch, AuxiliarySpec
from poise.models.groups import AuxiliaryOptions
from poise.models.parts import check_choice
from poise.nn.heads.region import ProposalHead, RegionHead
from poise.nn.kernels.roi_align import RegionAlign
from poise.nn.layers import retina_anchors
from poise.postprocess import RegionPostProcess
from poise.sample import TakeAll, random_sampler

FINEST_SCALE = 14.0  # times the finest stride, px: regions up to twice this side are read from the finest level
SINGLE_SCALE_STRIDES = (8, 16, 32, 64, 128)  # of the pyramid that ``SingleScaleAdapter`` makes of one map of stride 32


def faster_rcnn_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build Faster R-CNN: an RPN with RetinaNet's anchors and a second stage with GIoU loss of weight 10.

    Positives are the sampled regions whose IoU with an object is at least 0.5, the objects themselves among them.
    """
    convs = spec.region_convs
    first, second = DeltaCoder(), DeltaCoder((0.05, 0.05, 0.1, 0.1) if convs else (0.1, 0.1, 0.2, 0.2))
    align = RegionAlign(spec.strides[:-1], finest_scale=FINEST_SCALE * spec.strides[0])
    proposal = ProposalStage(
        ProposalHead(spec.channels, retina_anchors(spec.strides), first),
        MaxIoU(0.7, 0.3, 0.3, divisor=1),
        TakeAll() if spec.deterministic else random_sampler(256, 0.5),
        ProposalCriterion(first),
        training_postprocess=(ProposalPostProcessByImage if spec.deterministic else ProposalPostProcess)(4000, 1000),
        inference_postprocess=ProposalPostProcessByImage(1000, 1000),
    )
    region = RegionStage(
        RegionHead(
            spec.channels,
            spec.num_classes,
            align,
            second,
            hidden=spec.region_hidden,
            class_agnostic=convs > 0,
            convs=convs,
        ),
        MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0),
        TakeAll() if spec.deterministic else random_sampler(spec.regions, 0.25),
        RegionBoxCriterion(second, box_weight=10.0),
        postprocess=RegionPostProcess(0.0, 0.5),
    )
    return AuxiliaryBranch(RegionBranch(proposal, region), RegionFeatures(align), match_name="rcnn")


AUXILIARY: dict[str, Callable[[AuxiliarySpec], AuxiliaryBranch]] = {"faster_rcnn": faster_rcnn_branch, **DENSE}


def collaboration(
    options: AuxiliaryOptions,
    spec: AuxiliarySpec,
    query_generator: Callable[[], nn.Module],
    decoder_layers: int,
    *,
    adapter: nn.Module | None = None,
) -> Collaboration | None:
    """Build the auxiliary heads; None where no head is named.

    Args:
        options: a name of ``auxiliary_heads`` may occur several times.
        query_generator: builds the generator of a head's customized positive queries.
        adapter: makes the heads' pyramid of the memory's maps; by default ``CoarserLevelAdapter``.

    Raises:
        ValueError: a head is unknown, or neither heads nor queries would be trained.
    """
    built: list[AuxiliaryHead] = []
    spec = replace(spec, regions=options.regions, region_hidden=options.region_hidden)
    random = not spec.deterministic
    most = options.max_auxiliary_queries
    if most < 0 or min(options.auxiliary_head_weight, options.auxiliary_query_weight) < 0:
        raise ValueError(f"{options}: weights and the number of queries cannot be negative")
    sampler = PositiveQuerySampler(max(1, most), min(9, max(1, most)), options.pad_with_negatives, random=random)
    names = [name.strip() for name in options.auxiliary_heads.split(",") if name.strip()]
    for i, name in enumerate(names):
        check_choice("auxiliary_heads", name, AUXILIARY)
        branch = AUXILIARY[name](spec)
        earlier = names[:i].count(name)
        built.append(
            AuxiliaryHead(
                f"{name}{earlier + 1}" if earlier else name,
                branch.branch,
                branch.match_name,
                query_generator=query_generator() if most else None,
                sampler=sampler,
                read_features=branch.read_features,
                query_weight=options.auxiliary_query_weight,
            )
        )
    if built and not most and not options.auxiliary_head_weight:
        raise ValueError(
            "auxiliary_head_weight=0 excludes max_auxiliary_queries=0: neither the heads nor their queries would train "
            "anything; write auxiliary_heads='' for a detector without them"
        )
    head_weight = options.auxiliary_head_weight * decoder_layers
    return Collaboration(adapter or CoarserLevelAdapter(spec.channels), built, head_weight) if built else None


def single_scale_collaboration(
    options: AuxiliaryOptions, spec: AuxiliarySpec, query_generator: Callable[[], nn.Module], decoder_layers: int
) -> Collaboration | None:
    """Build the auxiliary heads of a single-scale encoder, on a pyramid made of its one map."""
    return collaboration(options, spec, query_generator, decoder_layers, adapter=SingleScaleAdapter(spec.channels))
