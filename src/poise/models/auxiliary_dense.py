"""Dense heads as auxiliary branches of Co-DETR: towers of one layer, each method's own assignment and losses.

What counts as positive, and is lent to the decoder, is the method's own word (its assignment). Methods that weigh
places instead of choosing them (DW, AutoAssign, FreeAnchor) lend those that weigh at least half as much as the best
place of the same object. A lent box is the place's prior: an anchor, or the square of one stride around a point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from poise.assign import ATSS, OTA, CenterRegion, Fovea, MaxIoU, TaskAligned
from poise.assign.auto_assign import AutoAssign
from poise.assign.dual_weighting import DualWeighting
from poise.assign.free_anchor import FreeAnchor, as_topk, lowest_first
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
from poise.criteria.rep_points import RepPointsCriterion
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors import DenseBranch
from poise.detectors.collaboration import Cells, Reader
from poise.nn.head_layers import point_grid, retina_anchors, square_anchors
from poise.nn.heads.anchor import AnchorHead
from poise.nn.heads.auto_assign import AutoAssignHead
from poise.nn.heads.centerness import CenternessHead, Distances, Offsets
from poise.nn.heads.distribution import DistributionHead, DistributionQuality
from poise.nn.heads.dual_weighting import BoundaryRefinement, DualWeightingHead
from poise.nn.heads.fovea import FoveaHead
from poise.nn.heads.overlap import IoUHead
from poise.nn.heads.rep_points import RepPointsHead
from poise.nn.heads.star import StarConv, StarHead, StarRefinement, distance_scales
from poise.nn.heads.task_aligned import TaskAlignedHead
from poise.postprocess import PostProcess, topk_priors
from poise.structures import SwitchAtEpoch

Built = tuple[nn.Module, Reader]


@dataclass(frozen=True)
class AuxiliarySpec:
    """What an auxiliary branch is built for."""

    channels: int
    strides: tuple[int, ...]  # of the pyramid over the memory, the adapter's levels among them
    num_classes: int
    deterministic: bool  # no sampling
    regions: int = 512  # that a second stage learns from, of an image
    region_hidden: int = 1024  # width of a second stage's layers
    region_convs: int = 0  # its convolutions; with some its boxes serve all classes


def with_coarser(strides: Sequence[int]) -> tuple[int, ...]:
    """The strides of a memory's levels and of the published adapter's, coarser than all."""
    return (*strides, 2 * strides[-1])


def atss_branch(site: AuxiliarySpec) -> Built:
    head = CenternessHead(site.channels, site.num_classes, square_anchors(site.strides), _anchor_offsets(), depth=1)
    return DenseBranch(head, ATSS(9, divisor=1), atss_criterion(), PostProcess(0.0, 0.6)), Cells()


def retinanet_branch(site: AuxiliarySpec) -> Built:
    """RetinaNet with a tower of one layer; only anchors that overlap an object by half are positive."""
    coder, grid = DeltaCoder(), retina_anchors(site.strides)
    head = AnchorHead(site.channels, site.num_classes, grid, coder, depth=1)
    branch = DenseBranch(head, MaxIoU(0.5, 0.4, 0.0, divisor=1), AnchorCriterion(coder), PostProcess(0.0, 0.5))
    return branch, Cells(grid.count)


def fcos_branch(site: AuxiliarySpec) -> Built:
    """FCOS with a tower of one layer; sizes of levels grow with their strides, eight strides the first's limit."""
    grid = point_grid(site.strides, 0.5)
    head = CenternessHead(site.channels, site.num_classes, grid, Distances(), depth=1, tower_bias=True)
    limits = tuple(8.0 * stride for stride in site.strides[:-1])
    return DenseBranch(head, CenterRegion(1.5, limits), fcos_criterion(), PostProcess(0.0, 0.6)), Cells()


def gfl_branch(site: AuxiliarySpec) -> Built:
    head = DistributionHead(site.channels, site.num_classes, square_anchors(site.strides), 17, depth=1)
    return DenseBranch(head, ATSS(9, divisor=1), DistributionCriterion(), PostProcess(0.0, 0.6)), Cells()


def gflv2_branch(site: AuxiliarySpec) -> Built:
    """GFLv2 with a tower of one layer: the class score times what the distribution says of its quality."""
    quality = DistributionQuality(4, 64)
    head = DistributionHead(site.channels, site.num_classes, square_anchors(site.strides), 17, depth=1, quality=quality)
    return DenseBranch(head, ATSS(9, divisor=1), gflv2_criterion(), PostProcess(0.0, 0.6)), Cells()


def vfnet_branch(site: AuxiliarySpec) -> Built:
    """VarifocalNet with star features and refinement, a tower of one layer, taught by ATSS."""
    channels, reach = site.channels, distance_scales(site.strides)
    refinement = StarRefinement(channels, len(site.strides), StarConv(channels))
    head = StarHead(
        channels,
        site.num_classes,
        square_anchors(site.strides),
        StarConv(channels),
        refinement,
        1,
        distance_scales=reach,
    )
    return DenseBranch(head, ATSS(9, divisor=1), VarifocalCriterion(), PostProcess(0.0, 0.6)), Cells()


def paa_branch(site: AuxiliarySpec) -> Built:
    """PAA with a tower of one layer, boxes decided by a mixture of two Gaussians, voted when shown alone."""
    head = IoUHead(site.channels, site.num_classes, square_anchors(site.strides), _anchor_offsets(), depth=1)
    postprocess = PostProcess(0.0, 0.6, preselect=topk_priors, min_size=-1.0, voting_sigma=0.025)
    return DenseBranch(head, PAA(9), PAACriterion(), postprocess), Cells()


def dw_branch(site: AuxiliarySpec) -> Built:
    """DW with box refinement and a tower of one layer."""
    refinement = BoundaryRefinement(site.channels)
    head = DualWeightingHead(site.channels, site.num_classes, point_grid(site.strides, 0.5), refinement, depth=1)
    criterion = DualWeightingCriterion()
    return DenseBranch(head, DualWeighting(head.center_prior), criterion, PostProcess(0.0, 0.6, min_size=-1)), Cells()


def tood_branch(site: AuxiliarySpec) -> Built:
    """TOOD whose shared tower has two layers (the fewest between which tasks can choose); ATSS for four epochs."""
    head = TaskAlignedHead(site.channels, site.num_classes, square_anchors(site.strides), depth=2)
    assigner = SwitchAtEpoch(ATSS(9, divisor=1), TaskAligned(divisor=1), 4)
    criterion = SwitchAtEpoch(InitialCriterion(), TaskAlignedCriterion(), 4)
    return DenseBranch(head, assigner, criterion, PostProcess(0.0, 0.6, clip_margin=None)), Cells()


def foveabox_branch(site: AuxiliarySpec) -> Built:
    """FoveaBox with a tower of one layer; sizes of levels overlap by a factor of two and grow with their strides."""
    coder, strides = LogDistances(), site.strides
    head = FoveaHead(site.channels, site.num_classes, point_grid(strides, 0.5), coder, depth=1)
    middle = tuple((2.0 * stride, 8.0 * stride) for stride in strides[1:-1])
    ranges = ((1.0, 8.0 * strides[0]), *middle, (2.0 * strides[-1], 16.0 * strides[-1]))
    branch = DenseBranch(head, Fovea(0.4, ranges), FoveaCriterion(coder), PostProcess(0.0, 0.5, clip_margin=1.0))
    return branch, Cells()


def ota_branch(site: AuxiliarySpec) -> Built:
    """OTA with a tower of one layer and the overlap predicted beside the classes."""
    grid = point_grid(site.strides, 0.0)
    head = IoUHead(site.channels, site.num_classes, grid, Distances(), depth=1, tower_bias=True)
    return DenseBranch(head, OTA(), OTACriterion(), PostProcess(0.0, 0.6)), Cells()


def autoassign_branch(site: AuxiliarySpec) -> Built:
    head = AutoAssignHead(site.channels, site.num_classes, point_grid(site.strides, 0.0), depth=1)
    return DenseBranch(head, AutoAssign(head.center_prior), AutoAssignCriterion(), PostProcess(0.0, 0.6)), Cells()


def freeanchor_branch(site: AuxiliarySpec) -> Built:
    """FreeAnchor with a tower of one layer and bags of 50 of RetinaNet's anchors."""
    coder, grid = DeltaCoder((0.1, 0.1, 0.2, 0.2)), retina_anchors(site.strides)
    head = AnchorHead(site.channels, site.num_classes, grid, coder, depth=1)
    assigner = FreeAnchor(50, as_topk if site.deterministic else lowest_first, coder=coder)
    return DenseBranch(head, assigner, FreeAnchorCriterion(), PostProcess(0.0, 0.5)), Cells(grid.count)


def reppoints_branch(site: AuxiliarySpec) -> Built:
    """RepPoints with a tower of one layer: the nearest point first, then overlap of the first boxes."""
    head = RepPointsHead(site.channels, site.num_classes, point_grid(site.strides, 0.0), depth=1)
    assigner = FirstBoxOverlap(MaxIoU(0.5, 0.4, 0.0, divisor=1))
    return DenseBranch(
        head, assigner, RepPointsCriterion(initial_assigner=NearestPoint(divisor=1)), PostProcess(0.0, 0.5)
    ), Cells()


def _anchor_offsets() -> Offsets:
    return Offsets(DeltaCoder((0.1, 0.1, 0.2, 0.2)))


DENSE: dict[str, Callable[[AuxiliarySpec], Built]] = {
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
