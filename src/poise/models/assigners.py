"""Another assigner for a detector: ``create_model(name, assigner="atss")`` or ``assigner=ATSS(topk=15)``.

An assigner comes with a criterion that fits (``poise.models.schemes``). It is compatible with a dense detector if
the head has the priors that it reads. The DETR family matches queries by ``hungarian``, with other costs as options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from poise.assign import (
    ATSS,
    OTA,
    PAA,
    RFLA,
    Assigner,
    AutoAssign,
    CenterRegion,
    DualWeighting,
    DynamicSoftLabel,
    Fovea,
    FreeAnchor,
    Hungarian,
    MaxIoU,
    SimOTA,
    TaskAligned,
)
from poise.assign.best_anchor import BestAnchor
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.detectors import QueryDetector
from poise.detectors.parts import dense_branch, is_query_detector
from poise.models.notation import Part
from poise.models.schemes import Incompatible, has_grid, scheme_for, use_scheme
from poise.models.values import build_part, to_part
from poise.plugins import load_plugins
from poise.structures import Progress, value_at

ANCHOR_SCALE = 8.0  # strides, as in ATSS's article: square anchors that heads of points get for IoU-based assigners


@dataclass(frozen=True)
class Choice:
    """An assigner with its published settings, and what it reads."""

    make: Callable[..., Assigner]
    needs: str


ASSIGNERS: dict[str, Choice] = {
    "max_iou": Choice(MaxIoU, "anchors"),
    "atss": Choice(ATSS, "anchors"),
    "center_region": Choice(CenterRegion, "one prior per cell"),
    "fovea": Choice(Fovea, "one prior per cell"),
    "rfla": Choice(RFLA, "one prior per cell"),
    "sim_ota": Choice(SimOTA, "predictions"),
    "ota": Choice(OTA, "predictions"),
    "task_aligned": Choice(TaskAligned, "predictions"),
    "dynamic_soft_label": Choice(DynamicSoftLabel, "predictions"),
    "dynamic_soft_label_rtmdet": Choice(partial(DynamicSoftLabel, distance_beta=3.0), "predictions"),
    "paa": Choice(PAA, "anchors and predictions"),
    "dual_weighting": Choice(DualWeighting, "predictions; pair weights"),
    "rf_assigner": Choice(partial(DualWeighting, candidates=ReceptiveFieldCandidates()), "predictions; pair weights"),
    "auto_assign": Choice(AutoAssign, "predictions; bags"),
    "free_anchor": Choice(FreeAnchor, "anchors and predictions; bags"),
}


def swap_assigner(network: nn.Module, assigner: str | Part | Assigner, model: str) -> bool:
    """Replace the assigner of ``network``, and its criterion if it does not fit the new assignments.

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
    if part.name not in builders():
        load_plugins()
    if is_query_detector(network):
        return _swap_matching(network, part, model)
    built = build_part(part, "assigner", builders())
    reason = incompatibility(network, part.name, built)
    if reason:
        compatible = [other for other in ASSIGNERS if not incompatibility(network, other)]
        raise ValueError(
            f"assigner '{part.name}' is not compatible with '{model}': {reason}; "
            f"compatible are: {', '.join(compatible) or 'none'}"
        )
    branch = dense_branch(network)
    assert branch is not None
    if ASSIGNERS[part.name].needs.startswith("anchors") and has_grid(branch.head) and branch.head.grid.scales == (1.0,):
        branch.head.grid = replace(branch.head.grid, scales=(ANCHOR_SCALE,))
    if part.options is None and _same_kind(value_at(branch.assigner, Progress.final()), built):
        return False
    use_scheme(branch, scheme_for(branch, built))
    return True


def _swap_matching(network: QueryDetector, part: Part, model: str) -> bool:
    """Replace the matching of queries; groups and repeats stay those of the detector."""
    if part.name != "hungarian":
        reason = "it is not a dense detector (its priors are queries)"
        raise ValueError(f"assigner '{part.name}' is not compatible with '{model}': {reason}; compatible is: hungarian")
    for option in ("groups", "repeats"):
        if option in (part.options or {}):
            cure = "set query_groups" if option == "groups" else "set one_to_many_repeats"
            raise ValueError(f"{option} of assigner '{part}' follows from the queries of the model: {cure} instead")
    if part.options is None:
        return False
    network.use_assigner(build_part(part, "assigner", {"hungarian": Hungarian}))
    return True


def builders() -> dict[str, Callable[..., Assigner]]:
    """Return the class or function of each assigner by name, the matching of queries among them."""
    return {**{name: choice.make for name, choice in ASSIGNERS.items()}, "hungarian": Hungarian}


def _same_kind(own: Assigner, other: Assigner) -> bool:
    """Return whether two assigners are of one kind, independent of their settings."""
    if isinstance(own, DynamicSoftLabel) and isinstance(other, DynamicSoftLabel):  # NanoDet-Plus's and RTMDet's
        return (own.distance_beta is None) == (other.distance_beta is None)
    if isinstance(own, DualWeighting) and isinstance(other, DualWeighting):  # DW's and RFAssigner's
        return (own.candidates is None) == (other.candidates is None)
    return type(own) is type(other)


def incompatibility(network: nn.Module, name: str, assigner: Assigner | None = None) -> str:
    """Return why an assigner cannot be used in ``network``, or an empty string.

    Args:
        name: of the assigner.
        assigner: the assigner; None: the one with published settings.
    """
    branch = dense_branch(network)
    if branch is None:
        return "it is not a dense detector (its priors are proposals or queries)"
    if name == "hungarian":
        return "it matches the queries of a DETR"
    try:
        scheme_for(branch, ASSIGNERS[name].make() if assigner is None else assigner)
    except Incompatible as reason:
        return str(reason)
    return ""


def markdown_table(networks: Mapping[str, nn.Module]) -> str:
    """Return a table of all assigners on ``networks`` (by family) as Markdown, then remarks on some pairs."""
    notes: dict[str, str] = {}
    head = f"| detector | {' | '.join(f'`{name}`' for name in ASSIGNERS)} |"
    lines = [head, "|---" * (len(ASSIGNERS) + 1) + "|"]
    lines.append(f"| *reads* | {' | '.join(choice.needs for choice in ASSIGNERS.values())} |")
    for family, network in networks.items():
        cells = []
        for name in ASSIGNERS:
            reason = incompatibility(network, name)
            found = [reason] if reason else remarks(network, name)
            numbers = [notes.setdefault(note, str(len(notes) + 1)) for note in found]
            cells.append(("no" if reason else "yes") + (f" ({', '.join(numbers)})" if numbers else ""))
        lines.append(f"| `{family}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"({number}) {note}" + "  " for note, number in notes.items())]) + "\n"


def remarks(network: nn.Module, name: str) -> list[str]:
    """Return what a user must know about a compatible assigner on the dense detector ``network``."""
    branch = dense_branch(network)
    assert branch is not None
    scheme = scheme_for(branch, ASSIGNERS[name].make())
    found = []
    if scheme.criterion is not branch.criterion:
        own = scheme.criterion is branch.hard_criterion
        found.append("with the losses of FCOS or RetinaNet" if own else "with the losses of the assigner's article")
    if isinstance(scheme.assigner, BestAnchor):
        found.append("the best anchor of each cell stands for the cell")
    return found
