"""Training schemes of dense detectors: an assigner, and the criterion that fits its assignments and the head.

Hard assigners return one object per prior (``Assignment``); they are trained with the detector's own criterion. Soft
assigners return ``PairWeights`` and bring the criterion of their article along. It reads scores and boxes alone, so
that it fits every dense head: a score is the detector's own, the product of class score and objectness (or centerness,
or IoU) where the head has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, cast, get_type_hints

from torch import nn

from poise.assign import RFLA, AutoAssign, CenterRegion, Fovea
from poise.assign.best_anchor import BestAnchor
from poise.assign.center_priors import CenterPrior, GaussianCenterPrior
from poise.assign.dual_weighting import DualWeights
from poise.assign.likelihood import BagWeights, CenteredBags
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.criteria.initial_boxes import WithInitialBoxes
from poise.detectors import DenseBranch
from poise.nn.layers import AnchorGrid
from poise.protocols import Assigner, Criterion, Head
from poise.structures import Assignment, PairWeights, Progress, SwitchAtEpoch, value_at

SwitchedCriterion = Criterion | SwitchAtEpoch[Criterion]

SOFT_CRITERIA: dict[type[PairWeights], Callable[[], Criterion]] = {
    DualWeights: DualWeightingCriterion,
    CenteredBags: AutoAssignCriterion,
    BagWeights: FreeAnchorCriterion,
}
"""The criterion of each type of pair weights, with the settings of its article."""


class Incompatible(ValueError):
    """The assigner cannot be used in the detector; the message is the reason."""


@dataclass(frozen=True)
class Scheme:
    """An assigner and its criterion; each may change during training (``SwitchAtEpoch``)."""

    assigner: Assigner
    criterion: SwitchedCriterion


class GridHead(Head, Protocol):
    """A head with a regular grid of priors."""

    grid: AnchorGrid


class ClassHead(Head, Protocol):
    """A head with submodules, to which a learned center prior can be added."""

    num_classes: int
    center_prior: nn.Module

    def children(self) -> Iterator[nn.Module]: ...


def has_grid(head: Head) -> TypeGuard[GridHead]:
    """Return whether a head has a regular grid of priors."""
    return isinstance(getattr(head, "grid", None), AnchorGrid)


def scheme_for(branch: DenseBranch, assigner: Assigner) -> Scheme:
    """Return the scheme with which the head of ``branch`` is trained by ``assigner``; the branch does not change.

    The branch's own criterion is kept if it belongs to the same kind of assignment.

    Raises:
        Incompatible: the head has no priors that the assigner reads, or no criterion fits its assignments.
    """
    if not has_grid(branch.head):
        raise Incompatible("its head has no regular grid of priors")
    grid = branch.head.grid
    levels = _max_levels(assigner)
    if levels is not None and len(grid.strides) > levels:
        raise Incompatible(f"its size ranges are for {levels} levels, the head has {len(grid.strides)}")
    returned = annotated_type(assigner, "return")
    criterion = _soft_criterion(branch, returned) if issubclass(returned, PairWeights) else branch.hard_criterion
    if reason := assignment_mismatch(assigner, criterion):
        raise Incompatible(reason)
    if isinstance(assigner, RFLA):
        assigner = replace(assigner, anchors=grid.count)
    if isinstance(assigner, (CenterRegion, Fovea, RFLA)) and grid.count > 1:
        assigner = BestAnchor(assigner, grid.count)
    return Scheme(assigner, criterion)


def use_scheme(branch: DenseBranch, scheme: Scheme) -> None:
    """Train ``branch`` by ``scheme`` from now on.

    A Gaussian center prior of AutoAssign becomes a parameter of the head, as in its article: one for each class, which
    starts with that width. A learned center prior that the scheme does not read is frozen.
    """
    assigner, head = scheme.assigner, cast(ClassHead, branch.head)
    if isinstance(assigner, AutoAssign) and isinstance(assigner.center_prior, GaussianCenterPrior):
        head.center_prior = CenterPrior(head.num_classes, assigner.center_prior.sigma, trained=True)
        assigner = replace(assigner, center_prior=head.center_prior)
    for part in head.children():
        if isinstance(part, CenterPrior):
            part.requires_grad_(isinstance(assigner, AutoAssign) and assigner.center_prior is part)
    branch.assigner, branch.criterion = assigner, scheme.criterion


def use_criterion(branch: DenseBranch, criterion: Criterion) -> None:
    """Train ``branch`` with ``criterion`` from now on, and the initial boxes of its head as before."""
    if issubclass(annotated_type(criterion, "assignment"), PairWeights):
        branch.criterion = _with_initial_boxes(branch, criterion)
    else:
        branch.criterion = branch.hard_criterion = criterion


def assignment_mismatch(assigner: Assigner | SwitchAtEpoch[Assigner], criterion: object) -> str:
    """Return why a criterion cannot read what an assigner returns, or an empty string."""
    returned = annotated_type(value_at(assigner, Progress.final()), "return")
    needed = annotated_type(plain_criterion(criterion), "assignment")
    if issubclass(returned, needed):
        return ""
    if issubclass(returned, PairWeights) and issubclass(needed, PairWeights):
        return "its losses need pair weights of another kind"
    hard, soft = "one object per prior", "weights of all pairs of priors and objects"
    kinds = [soft if issubclass(kind, PairWeights) else hard for kind in (returned, needed)]
    return "it returns {}, the losses need {}".format(*kinds)


def plain_criterion(criterion: object) -> object:
    """Return the criterion at the end of training, without that of initial boxes."""
    criterion = value_at(criterion, Progress.final())
    return criterion.criterion if isinstance(criterion, WithInitialBoxes) else criterion


def annotated_type(part: object, name: str) -> type:
    """Return the annotation of an argument (or of ``"return"``) of a call; ``Assignment`` if it is not a class."""
    declared = get_type_hints(type(part).__call__).get(name, Assignment)
    return declared if isinstance(declared, type) else Assignment


def _soft_criterion(branch: DenseBranch, weights: type[PairWeights]) -> SwitchedCriterion:
    """Return the criterion of a type of pair weights: the branch's own if it is the same, or a new one."""
    if weights not in SOFT_CRITERIA:
        raise Incompatible(f"no criterion is known for its assignments ({weights.__name__})")
    criterion = SOFT_CRITERIA[weights]()
    if type(plain_criterion(branch.criterion)) is type(criterion):
        return branch.criterion
    return _with_initial_boxes(branch, criterion)


def _with_initial_boxes(branch: DenseBranch, criterion: Criterion) -> Criterion:
    return criterion if branch.initial_criterion is None else WithInitialBoxes(criterion, branch.initial_criterion)


def _max_levels(assigner: Assigner) -> int | None:
    """Return the number of levels for which an assigner has size ranges, or None if it has none."""
    if isinstance(assigner, CenterRegion):
        return len(assigner.limits) + 1
    return len(assigner.ranges) if isinstance(assigner, Fovea) else None
