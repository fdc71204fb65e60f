"""Trying another assigner on a dense detector: ``create_model(name, assigner="atss")``.

An assigner fits where it gives what the detector's criterion takes (one object a place, or weights of every pair) and
where the head's places are what it decides from. Criteria and assigners say the first in their signatures.
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
from poise.nn.head_layers import AnchorGrid
from poise.structures import Assignment, PairWeights, Progress, value_at
from poise.suggestions import did_you_mean

ANCHOR_SCALE = 8.0  # strides, as in ATSS's article: square anchors that heads of points get for IoU-based assigners


@dataclass(frozen=True)
class Choice:
    """An assigner with its published settings, and what it decides from."""

    make: Callable[[], Any]
    needs: str


ASSIGNERS: dict[str, Choice] = {
    "max_iou": Choice(MaxIoU, "anchors"),
    "atss": Choice(ATSS, "anchors"),
    "center_region": Choice(CenterRegion, "one place a cell"),
    "fovea": Choice(Fovea, "one place a cell"),
    "sim_ota": Choice(SimOTA, "predictions"),
    "ota": Choice(OTA, "predictions"),
    "task_aligned": Choice(TaskAligned, "predictions"),
    "dynamic_soft_label": Choice(DynamicSoftLabel, "predictions"),
    "dynamic_soft_label_rtmdet": Choice(partial(DynamicSoftLabel, center_radius=3.0), "predictions"),
    "paa": Choice(PAA, "anchors and predictions"),
    "dual_weighting": Choice(DualWeighting, "predictions, gives weights"),
    "auto_assign": Choice(AutoAssign, "predictions, gives bags"),
    "free_anchor": Choice(FreeAnchor, "anchors and predictions, gives bags"),
}


def swap_assigner(network: nn.Module, name: str, model: str) -> None:
    """Let ``network`` learn by the assigner ``name``, with its published settings.

    A network that has this kind of assigner already keeps its own. Heads of points lend square anchors of 8 strides to
    assigners that compare anchors; where they predict is not changed.

    Raises:
        ValueError: an unknown name, or an assigner that does not fit; the message says why and what does.
    """
    if name not in ASSIGNERS:
        raise ValueError(f"no assigner '{name}'{did_you_mean(name, ASSIGNERS)}; there are {', '.join(ASSIGNERS)}")
    reason = misfit(network, name)
    if reason:
        fitting = [other for other in ASSIGNERS if not misfit(network, other)]
        raise ValueError(
            f"assigner '{name}' does not fit '{model}': {reason}; what fits: {', '.join(fitting) or 'none'}"
        )
    branch: Any = network.branch
    if ASSIGNERS[name].needs.startswith("anchors") and branch.head.grid.scales == (1.0,):
        branch.head.grid = replace(branch.head.grid, scales=(ANCHOR_SCALE,))
    assigner = ASSIGNERS[name].make()
    if not _alike(value_at(branch.assigner, Progress.final()), assigner):
        branch.assigner = assigner


def _alike(own: Any, other: Any) -> bool:
    """Whether two assigners are of one kind, whatever their settings."""
    form = "center_radius"  # tells the two dynamic soft labels apart
    return type(own) is type(other) and (getattr(own, form, None) is None) == (getattr(other, form, None) is None)


def misfit(network: nn.Module, name: str) -> str:
    """Why the assigner ``name`` cannot teach ``network``; empty where it can."""
    branch = getattr(network, "branch", None)
    if not isinstance(branch, DenseBranch):
        return "it is no dense detector (its places are proposals or queries)"
    assigner = ASSIGNERS[name].make()
    criterion = value_at(branch.criterion, Progress.final())
    gives, takes = _hint(assigner, "return"), _hint(criterion, "assignment")
    if not issubclass(gives, takes) and issubclass(gives, PairWeights) and issubclass(takes, PairWeights):
        return "it gives weights of another kind than its losses take"
    if not issubclass(gives, takes):
        says = {True: "weights for every pair of place and object", False: "one object a place"}
        return (
            f"it gives {says[issubclass(gives, PairWeights)]}, the losses take {says[issubclass(takes, PairWeights)]}"
        )
    grid = getattr(branch.head, "grid", None)
    if not isinstance(grid, AnchorGrid):
        return "its head has no regular grid of places"
    if isinstance(assigner, (CenterRegion, Fovea)) and grid.count > 1:
        return f"its head predicts {grid.count} times at each place, all of which would be positive together"
    served = _levels_served(assigner)
    if served is not None and len(grid.strides) > served:
        return f"its ranges of size serve {served} levels, the head has {len(grid.strides)}"
    return ""


def _levels_served(assigner: Any) -> int | None:
    """For how many levels an assigner has ranges of size; None where it has none."""
    if isinstance(assigner, CenterRegion):
        return len(assigner.limits) + 1
    return len(assigner.ranges) if isinstance(assigner, Fovea) else None


def _hint(part: Any, what: str) -> type:
    """The type that an assigner's or a criterion's call declares (``Assignment`` where it declares no class)."""
    declared = get_type_hints(type(part).__call__).get(what, Assignment)
    return declared if isinstance(declared, type) else Assignment


def markdown_table(networks: Mapping[str, nn.Module]) -> str:
    """Which assigner fits which detector, as Markdown: a row for each of ``networks`` (by family), then the reasons."""
    notes: dict[str, str] = {}
    head = f"| detector | {' | '.join(f'`{name}`' for name in ASSIGNERS)} |"
    lines = [head, "|---" * (len(ASSIGNERS) + 1) + "|"]
    lines.append(f"| *decides from* | {' | '.join(choice.needs for choice in ASSIGNERS.values())} |")
    for family, network in networks.items():
        cells = []
        for name in ASSIGNERS:
            reason = misfit(network, name)
            if reason:
                notes.setdefault(reason, str(len(notes) + 1))
            cells.append(f"no ({notes[reason]})" if reason else "yes")
        lines.append(f"| `{family}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"({number}) {reason}" + "  " for reason, number in notes.items())]) + "\n"
