"""Another assigner for a dense detector: ``create_model(name, assigner="atss")`` or ``assigner=ATSS(topk=15)``.

An assigner is compatible with a detector if its result is of the type that the criterion takes (a hard ``Assignment``,
or ``PairWeights``), which both declare in their signatures, and if the head has the priors that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_type_hints

from torch import nn

from poise.assign import (
    ATSS,
    OTA,
    PAA,
    Assigner,
    AutoAssign,
    CenterRegion,
    DualWeighting,
    DynamicSoftLabel,
    Fovea,
    FreeAnchor,
    MaxIoU,
    SimOTA,
    TaskAligned,
)
from poise.detectors import DenseBranch
from poise.models.notation import Part
from poise.models.values import build_part, to_part
from poise.nn.layers import AnchorGrid
from poise.structures import Assignment, PairWeights, Progress, value_at

ANCHOR_SCALE = 8.0  # strides, as in ATSS's article: square anchors that heads of points get for IoU-based assigners


@dataclass(frozen=True)
class Choice:
    """An assigner with its published settings, and what it reads."""

    make: Callable[[], Any]
    needs: str


ASSIGNERS: dict[str, Choice] = {
    "max_iou": Choice(MaxIoU, "anchors"),
    "atss": Choice(ATSS, "anchors"),
    "center_region": Choice(CenterRegion, "one prior per cell"),
    "fovea": Choice(Fovea, "one prior per cell"),
    "sim_ota": Choice(SimOTA, "predictions"),
    "ota": Choice(OTA, "predictions"),
    "task_aligned": Choice(TaskAligned, "predictions"),
    "dynamic_soft_label": Choice(DynamicSoftLabel, "predictions"),
    "dynamic_soft_label_rtmdet": Choice(partial(DynamicSoftLabel, center_radius=3.0), "predictions"),
    "paa": Choice(PAA, "anchors and predictions"),
    "dual_weighting": Choice(DualWeighting, "predictions; pair weights"),
    "auto_assign": Choice(AutoAssign, "predictions; bags"),
    "free_anchor": Choice(FreeAnchor, "anchors and predictions; bags"),
}


def swap_assigner(network: nn.Module, assigner: str | Part | Assigner, model: str) -> bool:
    """Replace the assigner of ``network``.

    A bare name stands for the assigner with its published settings, or for the network's own if it is of this kind. A
    value, or a name with options, is used exactly as given. For assigners that need anchors, the priors of point-based
    heads become square anchors of 8 strides; the decoding of their boxes does not change.

    Args:
        assigner: ``"atss"``, ``"atss(topk=15)"`` or ``ATSS(topk=15)``.
        model: name of the model, for messages.

    Returns:
        whether the assigner was replaced.

    Raises:
        ValueError: the name is unknown, an option is wrong, or the assigner is not compatible; the message gives the
            reason and those that are.
    """
    part = to_part(assigner, "assigner", builders())
    built = build_part(part, "assigner", builders())
    reason = incompatibility(network, part.name, built)
    if reason:
        compatible = [other for other in ASSIGNERS if not incompatibility(network, other)]
        raise ValueError(
            f"assigner '{part.name}' is not compatible with '{model}': {reason}; "
            f"compatible are: {', '.join(compatible) or 'none'}"
        )
    branch: Any = network.branch
    if ASSIGNERS[part.name].needs.startswith("anchors") and branch.head.grid.scales == (1.0,):
        branch.head.grid = replace(branch.head.grid, scales=(ANCHOR_SCALE,))
    if part.options is None and _same_kind(value_at(branch.assigner, Progress.final()), built):
        return False
    branch.assigner = built
    return True


def builders() -> dict[str, Callable[..., Any]]:
    """Return the class or function of each assigner by name."""
    return {name: choice.make for name, choice in ASSIGNERS.items()}


def _same_kind(own: Any, other: Any) -> bool:
    """Return whether two assigners are of one kind, independent of their settings."""
    if isinstance(own, DynamicSoftLabel) and isinstance(other, DynamicSoftLabel):  # NanoDet-Plus's and RTMDet's
        return (own.center_radius is None) == (other.center_radius is None)
    return type(own) is type(other)


def incompatibility(network: nn.Module, name: str, assigner: Any = None) -> str:
    """Return why an assigner cannot be used in ``network``, or an empty string.

    Args:
        name: of the assigner.
        assigner: the assigner; None: the one with published settings.
    """
    branch = getattr(network, "branch", None)
    if not isinstance(branch, DenseBranch):
        return "it is not a dense detector (its priors are proposals or queries)"
    assigner = ASSIGNERS[name].make() if assigner is None else assigner
    if reason := assignment_mismatch(assigner, branch.criterion):
        return reason
    grid = getattr(branch.head, "grid", None)
    if not isinstance(grid, AnchorGrid):
        return "its head has no regular grid of priors"
    if isinstance(assigner, (CenterRegion, Fovea)) and grid.count > 1:
        return f"its head has {grid.count} priors per cell, which would be positive together"
    levels = _max_levels(assigner)
    if levels is not None and len(grid.strides) > levels:
        return f"its size ranges are for {levels} levels, the head has {len(grid.strides)}"
    return ""


def assignment_mismatch(assigner: Any, criterion: Any) -> str:
    """Return why a criterion cannot read what an assigner returns, or an empty string."""
    returned = _hint(value_at(assigner, Progress.final()), "return")
    needed = _hint(value_at(criterion, Progress.final()), "assignment")
    if issubclass(returned, needed):
        return ""
    if issubclass(returned, PairWeights) and issubclass(needed, PairWeights):
        return "its losses need pair weights of another kind"
    hard, soft = "one object per prior", "weights of all pairs of priors and objects"
    kinds = [soft if issubclass(kind, PairWeights) else hard for kind in (returned, needed)]
    return "it returns {}, the losses need {}".format(*kinds)


def _max_levels(assigner: Any) -> int | None:
    """Return the number of levels for which an assigner has size ranges, or None if it has none."""
    if isinstance(assigner, CenterRegion):
        return len(assigner.limits) + 1
    return len(assigner.ranges) if isinstance(assigner, Fovea) else None


def _hint(part: Any, what: str) -> type:
    """Return the type that the call of an assigner or a criterion declares (``Assignment`` if it is not a class)."""
    declared = get_type_hints(type(part).__call__).get(what, Assignment)
    return declared if isinstance(declared, type) else Assignment


def markdown_table(networks: Mapping[str, nn.Module]) -> str:
    """Return a table of compatible assigners as Markdown: a row for each of ``networks`` (by family), then reasons."""
    notes: dict[str, str] = {}
    head = f"| detector | {' | '.join(f'`{name}`' for name in ASSIGNERS)} |"
    lines = [head, "|---" * (len(ASSIGNERS) + 1) + "|"]
    lines.append(f"| *reads* | {' | '.join(choice.needs for choice in ASSIGNERS.values())} |")
    for family, network in networks.items():
        cells = []
        for name in ASSIGNERS:
            reason = incompatibility(network, name)
            if reason:
                notes.setdefault(reason, str(len(notes) + 1))
            cells.append(f"no ({notes[reason]})" if reason else "yes")
        lines.append(f"| `{family}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"({number}) {reason}" + "  " for reason, number in notes.items())]) + "\n"
