"""Dense heads as auxiliary heads of Co-DETR: towers of one layer, each with its method's assignment and losses.

The positives of the method's assignment become customized positive queries of the decoder. Of methods that weight
priors instead of choosing them (DW, AutoAssign, FreeAnchor) these are the priors whose weight is at least half of the
highest weight of the same object. The box of such a query is the prior: an anchor, or a square of one stride around a
point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poise.assign import ATSS, OTA, CenterRegion, Fovea, MaxIoU, TaskAligned
from poise.assign.auto_assign import AutoAssign
from poise.assign.dual_weighting import DualWeighting
from poise.assign.free_anchor import FreeAnchor, as_topk, lowest_first, offsets_of_head
from poise.assign.paa import PAA
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.boxes import DeltaCoder, LogDistances
from poise.criteria import AnchorCriterion, DistributionCriterion, atss_criterion, fcos_criterion
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.criteria.distribution import gflv2_criterion
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.criteria.fovea import FoveaCriterion
from poise.criteria.ota import OTACriterion
from poise.criteria.paa import PAACriterion
from poise.criteria.rep_points import InitialPointsCriterion, RepPointsCriterion
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors import DenseBranch
from poise.detectors.collaboration import CellFeatures, FeatureReader
from poise.nn.heads.anchor import AnchorHead
from poise.nn.heads.auto_assign import AutoAssignHead
from poise.nn.heads.centerness import CenternessHead, Distances, IoUHead, Offsets
from poise.nn.heads.distribution import DistributionHead, DistributionQuality
from poise.nn.heads.dual_weighting import BoundaryRefinement, DualWeightingHead
from poise.nn.heads.fovea import FoveaHead
from poise.nn.heads.rep_points import RepPointsHead
from poise.nn.heads.star import StarConv, StarHead, StarRefinement, distance_scales
from poise.nn.heads.task_aligned import TaskAlignedHead
from poise.nn.layers import point_grid, retina_anchors, square_anchors
from poise.postprocess import PostProcess, topk_priors
from poise.protocols import Assigner, Branch, Criterion
from poise.structures import SwitchAtEpoch


@dataclass(frozen=True)
class AuxiliarySpec:
    """What an auxiliary head is built for."""

    channels: int
    strides: tuple[int, ...]  # of the pyramid that the heads read, levels of the adapter included
    num_classes: int
    deterministic: bool  # no sampling
    region_convs: int = 0  # 3x3 convolutions of a second stage; its boxes are class-agnostic if there are any
    regions: int = 512  # of an image that train a second stage
    region_hidden: int = 1024  # width of a second stage's fully connected layers


@dataclass(frozen=True)
class AuxiliaryBranch:
    """A branch, and how customized positive queries are made of its positives."""

    branch: Branch
    read_features: FeatureReader = CellFeatures()
    match_name: str = "dense"  # key of the match whose positives become queries


def with_coarser(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of the encoder's levels and of the level that ``CoarserLevelAdapter`` adds."""
    return (*strides, 2 * strides[-1])


def atss_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    head = CenternessHead(spec.channels, spec.num_classes, square_anchors(spec.strides), _anchor_offsets(), depth=1)
    return AuxiliaryBranch(DenseBranch(head, ATSS(9, divisor=1), atss_criterion(), PostProcess(0.0, 0.6)))


def retinanet_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build RetinaNet; only anchors whose IoU with an object is at least 0.5 are positive."""
    coder, grid = DeltaCoder(), retina_anchors(spec.strides)
    head = AnchorHead(spec.channels, spec.num_classes, grid, coder, depth=1)
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0, divisor=1), AnchorCriterion(coder), PostProcess(0.0, 0.5))
    return AuxiliaryBranch(branch, CellFeatures(grid.count))


def fcos_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build FCOS; a level takes objects of up to eight times its stride, the last one larger ones too."""
    grid = point_grid(spec.strides, 0.5)
    head = CenternessHead(spec.channels, spec.num_classes, grid, Distances(), depth=1, tower_bias=True)
    limits = tuple(8.0 * stride for stride in spec.strides[:-1])
    return AuxiliaryBranch(DenseBranch(head, CenterRegion(1.5, limits), fcos_criterion(), PostProcess(0.0, 0.6)))


def gfl_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    head = DistributionHead(spec.channels, spec.num_classes, square_anchors(spec.strides), 17, depth=1)
    return AuxiliaryBranch(DenseBranch(head, ATSS(9, divisor=1), DistributionCriterion(), PostProcess(0.0, 0.6)))


def gflv2_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build GFLv2; class scores are multiplied by a quality predicted from the box distribution."""
    quality = DistributionQuality(4, 64)
    head = DistributionHead(spec.channels, spec.num_classes, square_anchors(spec.strides), 17, depth=1, quality=quality)
    return AuxiliaryBranch(DenseBranch(head, ATSS(9, divisor=1), gflv2_criterion(), PostProcess(0.0, 0.6)))


def vfnet_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build VarifocalNet with star-shaped features, box refinement and ATSS."""
    channels, reach = spec.channels, distance_scales(spec.strides)
    refinement = StarRefinement(channels, len(spec.strides), StarConv(channels))
    head = StarHead(
        channels,
        spec.num_classes,
        square_anchors(spec.strides),
        StarConv(channels),
        refinement=refinement,
        depth=1,
        distance_scales=reach,
    )
    return AuxiliaryBranch(DenseBranch(head, ATSS(9, divisor=1), VarifocalCriterion(), PostProcess(0.0, 0.6)))


def paa_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build PAA, with score voting when the head detects by itself."""
    head = IoUHead(spec.channels, spec.num_classes, square_anchors(spec.strides), _anchor_offsets(), depth=1)
    postprocess = PostProcess(0.0, 0.6, preselect=topk_priors, min_size=-1.0, voting_sigma=0.025)
    return AuxiliaryBranch(DenseBranch(head, PAA(9), PAACriterion(), postprocess))


def dw_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build DW with box refinement."""
    refinement = BoundaryRefinement(spec.channels)
    head = DualWeightingHead(spec.channels, spec.num_classes, point_grid(spec.strides, 0.5), refinement, depth=1)
    criterion = DualWeightingCriterion()
    return AuxiliaryBranch(
        DenseBranch(head, DualWeighting(head.center_prior), criterion, PostProcess(0.0, 0.6, min_size=-1))
    )


def tood_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build TOOD with a shared tower of two layers, the fewest that its layer attention can weight; ATSS for four
    epochs."""
    head = TaskAlignedHead(spec.channels, spec.num_classes, square_anchors(spec.strides), depth=2)
    assigner: SwitchAtEpoch[Assigner] = SwitchAtEpoch(ATSS(9, divisor=1), TaskAligned(divisor=1), 4)
    criterion: SwitchAtEpoch[Criterion] = SwitchAtEpoch(InitialCriterion(), TaskAlignedCriterion(), 4)
    return AuxiliaryBranch(DenseBranch(head, assigner, criterion, PostProcess(0.0, 0.6, clip_margin=None)))


def foveabox_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build FoveaBox; a level takes objects of two to eight times its stride."""
    coder, strides = LogDistances(), spec.strides
    head = FoveaHead(spec.channels, spec.num_classes, point_grid(strides, 0.5), coder, depth=1)
    middle = tuple((2.0 * stride, 8.0 * stride) for stride in strides[1:-1])
    ranges = ((1.0, 8.0 * strides[0]), *middle, (2.0 * strides[-1], 16.0 * strides[-1]))
    branch = DenseBranch(head, Fovea(0.4, ranges), FoveaCriterion(coder), PostProcess(0.0, 0.5, clip_margin=1.0))
    return AuxiliaryBranch(branch)


def ota_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build OTA with a branch that predicts the IoU."""
    grid = point_grid(spec.strides, 0.0)
    head = IoUHead(spec.channels, spec.num_classes, grid, Distances(), depth=1, tower_bias=True)
    return AuxiliaryBranch(DenseBranch(head, OTA(), OTACriterion(), PostProcess(0.0, 0.6)))


def autoassign_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    head = AutoAssignHead(spec.channels, spec.num_classes, point_grid(spec.strides, 0.0), depth=1)
    return AuxiliaryBranch(
        DenseBranch(head, AutoAssign(head.center_prior), AutoAssignCriterion(), PostProcess(0.0, 0.6))
    )


def freeanchor_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build FreeAnchor with bags of 50 of RetinaNet's anchors."""
    coder, grid = DeltaCoder((0.1, 0.1, 0.2, 0.2)), retina_anchors(spec.strides)
    head = AnchorHead(spec.channels, spec.num_classes, grid, coder, depth=1)
    choose = as_topk if spec.deterministic else lowest_first
    assigner = FreeAnchor(50, choose, coder=coder, offsets=offsets_of_head)
    return AuxiliaryBranch(
        DenseBranch(head, assigner, FreeAnchorCriterion(), PostProcess(0.0, 0.5)), CellFeatures(grid.count)
    )


def reppoints_branch(spec: AuxiliarySpec) -> AuxiliaryBranch:
    """Build RepPoints: its first boxes are supervised at the nearest point, its second ones by the IoU of the first."""
    head = RepPointsHead(spec.channels, spec.num_classes, point_grid(spec.strides, 0.0), depth=1)
    assigner = FirstBoxOverlap(MaxIoU(0.5, 0.4, 0.0, divisor=1))
    criterion = RepPointsCriterion(initial=InitialPointsCriterion(NearestPoint(divisor=1)))
    return AuxiliaryBranch(DenseBranch(head, assigner, criterion, PostProcess(0.0, 0.5)))


def _anchor_offsets() -> Offsets:
    return Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))


DENSE: dict[str, Callable[[AuxiliarySpec], AuxiliaryBranch]] = {
    "atss": atss_branch,
    "retinanet": retinanet_branch,
    "fcos": fcos_branch,
    "gfl": gfl_branch,
    "gflv2": gflv2_branch,
    "vfnet": vfnet_branch,
    "paa": paa_branch,
    "dw": dw_branch,
    "tood": tood_branch,
    "foveabox": foveabox_branch,
    "ota": ota_branch,
    "autoassign": autoassign_branch,
    "freeanchor": freeanchor_branch,
    "reppoints": reppoints_branch,
}
