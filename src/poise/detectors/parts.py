"""The parts of a network that other rooms read, with their types.

A network is a detector of poise or a user's own module; these functions say what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeGuard, cast

from torch import nn

from poise.branches.region import RegionBranch, RegionStage
from poise.detectors.dense import DenseBranch, PyramidDetector
from poise.detectors.dual import DualBranch
from poise.detectors.encoder import EncoderDetector
from poise.detectors.query import QueryDetector
from poise.postprocess import PostProcess
from poise.protocols import Criterion, Head, Neck
from poise.structures import Detections, SwitchAtEpoch

if TYPE_CHECKING:
    from poise.protocols import BackboneModule, DetectorModule


class PyramidNetwork(Protocol):
    """A network with a backbone and a neck."""

    backbone: BackboneModule
    neck: Neck


class HeadAndPostProcess(Protocol):
    """The branch of a one-stage detector, as far as inference needs it."""

    head: Head
    postprocess: PostProcess


class DenseNetwork(PyramidNetwork, Protocol):
    """A one-stage detector: ``PyramidDetector`` with one stage, or ``GuidedDetector``."""

    branch: HeadAndPostProcess


class TwoStageNetwork(PyramidNetwork, Protocol):
    """A two-stage detector: ``PyramidDetector`` with a ``RegionBranch``."""

    branch: RegionBranch


class RegionNetwork(PyramidNetwork, Protocol):
    """A detector with proposals as input: ``RegionDetector``."""

    branch: RegionStage


class Supervised(Protocol):
    """A module with a criterion, which may be replaced."""

    criterion: Criterion | SwitchAtEpoch[Criterion]


def child(module: nn.Module, name: str) -> nn.Module | None:
    """Return the submodule ``name``, or None if there is none."""
    return dict(module.named_children()).get(name)


def has_pyramid(network: nn.Module) -> TypeGuard[PyramidNetwork]:
    """Return whether a network has a backbone and a neck; exported files have none."""
    return {"backbone", "neck"} <= dict(network.named_children()).keys()


def is_dense(network: nn.Module) -> TypeGuard[DenseNetwork]:
    """Return whether a network has backbone, neck and a branch with a head and its post-processing."""
    branch = child(network, "branch")
    if branch is None or child(branch, "head") is None:
        return False
    return has_pyramid(network) and hasattr(branch, "postprocess")


def is_two_stage(network: nn.Module) -> TypeGuard[TwoStageNetwork]:
    """Return whether a network has backbone, neck and both stages of Faster R-CNN."""
    return isinstance(child(network, "branch"), RegionBranch) and has_pyramid(network)


def is_region_detector(network: nn.Module) -> TypeGuard[RegionNetwork]:
    """Return whether a network has backbone, neck and the second stage of Faster R-CNN alone."""
    return isinstance(child(network, "branch"), RegionStage) and has_pyramid(network)


def has_encoder(network: nn.Module) -> TypeGuard[QueryDetector | EncoderDetector]:
    """Return whether a network has a transformer encoder, whose memory ``encode`` returns."""
    return isinstance(network, (QueryDetector, EncoderDetector))


def is_query_detector(network: nn.Module) -> TypeGuard[QueryDetector]:
    """Return whether a network is of the DETR family."""
    return isinstance(network, QueryDetector)


def has_distinct_queries(network: nn.Module) -> bool:
    """Return whether the queries of a DETR are selected by NMS."""
    return is_query_detector(network) and bool(getattr(network.queries, "distinct", 0.0))


def dense_branch(network: nn.Module) -> DenseBranch | None:
    """Return the dense branch of a one-stage detector, or None."""
    branch = child(network, "branch")
    return branch if isinstance(branch, DenseBranch) else None


def has_one_to_one(network: nn.Module) -> bool:
    """Return whether a one-stage detector has a one-to-one branch, which detects."""
    return isinstance(child(network, "branch"), DualBranch)


def region_stage(network: nn.Module) -> RegionStage | None:
    """Return the second stage of a two-stage detector, or of one with proposals as input; None for other detectors."""
    branch = child(network, "branch")
    stage = branch.region if isinstance(branch, RegionBranch) else branch
    return stage if isinstance(stage, RegionStage) else None


def supervised_parts(network: nn.Module) -> list[Supervised]:
    """Return all modules with a criterion, auxiliary heads included."""
    found = [module for module in network.modules() if getattr(module, "criterion", None) is not None]
    return cast("list[Supervised]", found)


def proposer(network: DetectorModule) -> Callable[..., Detections]:
    """Return what computes the proposals of a two-stage detector, or the detections of another one.

    Its arguments are those of ``predict``.
    """
    return network.propose if isinstance(network, PyramidDetector) else network.predict
