"""A one-to-one branch of dense detectors: ``create_model(NAME, one_to_one="task_aligned(topk=7, keep=1)")``.

The detector then detects without NMS (consistent dual assignments of YOLOv10: Wang et al. 2024, section 3.1). Weights
of the two branches that change during training are those of YOLO26, as its documentation describes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import nn

from poise.assign import TaskAligned
from poise.detectors import DenseBranch, DualBranch
from poise.detectors.parts import dense_branch, is_query_detector
from poise.models.notation import Part
from poise.models.schemes import Incompatible, scheme_for, use_scheme
from poise.models.values import build_part

Value = TypeVar("Value")

ONE, MANY = "branch.one_to_one.head.", "branch.head."  # in the names of a state dict
WITHOUT_EFFECT = ("nms_threshold", "nms_similarity", "voting_sigma")  # options of post-processing with NMS


@dataclass(frozen=True)
class DualAssignment:
    """A one-to-one branch next to the detector's own.

    Args:
        assigner: of the one-to-one branch; one prior for an object at most.
        start, end: weight of the one-to-many losses at the start and at the end of training; it changes linearly, and
            the one-to-one losses have the rest to 1. The article weights both alike: ``start=0.5, end=0.5``.
    """

    assigner: TaskAligned = TaskAligned(topk=7, keep=1)
    start: float = 0.8
    end: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise ValueError(f"{self}: start and end are weights in [0,1]")
        if type(self.assigner) is not TaskAligned or 1 not in (self.assigner.topk, self.assigner.keep):
            raise ValueError(
                f"one_to_one: {self.assigner} may assign several priors to an object, which would be detected several "
                "times; give task_aligned(topk=7, keep=1), or another topk"
            )


ONE_TO_ONE: dict[str, Callable[..., DualAssignment | TaskAligned]] = {
    "dual_assignment": DualAssignment,
    "task_aligned": TaskAligned,
}
"""The value itself, and the assigner, which stands for the value with it and the default weights.

Dynamic k assigners are none of them: with topk=1 an object may still win a second prior in a conflict.
"""


def add_one_to_one(network: nn.Module, part: Part, model: str, options: Mapping[str, object]) -> None:
    """Add a one-to-one branch to a dense detector: a copy of its head, trained with the criterion of hard assignments.

    Args:
        network: with its final assigner and criterion.
        part: ``task_aligned(topk=7, keep=1)`` or ``dual_assignment(...)``.
        model: name of the model, for messages.
        options: of the model that were given.

    Raises:
        ValueError: the name or an option is wrong, the detector is not dense, its head does not fit, or an option of
            post-processing with NMS is given, too.
    """
    own = dense_branch(network)
    if own is None:
        detects = "its queries are matched one-to-one already" if is_query_detector(network) else "its regions overlap"
        raise ValueError(
            f"one_to_one='{part}' is for dense detectors, which '{model}' is not: {detects}; leave it out, or take a "
            "model such as fcos_r50_fpn"
        )
    built = build_part(part, "one_to_one", ONE_TO_ONE)
    value = built if isinstance(built, DualAssignment) else DualAssignment(built)
    for name in WITHOUT_EFFECT:
        if options.get(name) is not None:
            raise ValueError(
                f"{name}={options[name]!r} has no effect with one_to_one='{part}', which detects without NMS: leave "
                "one of them out"
            )
    one = DenseBranch(
        copy.deepcopy(own.head),
        own.assigner,
        own.criterion,
        replace(own.postprocess, nms_threshold=None, voting_sigma=0.0),
        hard_criterion=own.hard_criterion,
        initial_criterion=own.initial_criterion,
    )
    try:
        use_scheme(one, scheme_for(one, value.assigner))
    except Incompatible as reason:
        raise ValueError(f"one_to_one='{part}' does not fit '{model}': {reason}") from reason
    network.branch = DualBranch(own, one, value.start, value.end)


def deployed_names(names: Mapping[str, Value]) -> dict[str, Value]:
    """Return entries of a state dict with those of the one-to-one head in place of those of the one-to-many head."""
    one = {name.replace(ONE, MANY): value for name, value in names.items() if ONE in name}
    return {name: value for name, value in names.items() if ONE not in name} | one


def starting_weights(own: Mapping[str, object], values: Mapping[str, Value]) -> dict[str, Value]:
    """Return weights to start from; a one-to-one head starts with those of the only head where there is one.

    Args:
        own: entries of the state dict of the model to start.
        values: the weights, by name.
    """
    lacking = {name: name.replace(ONE, MANY) for name in own if ONE in name and name not in values}
    return {**values, **{name: values[source] for name, source in lacking.items() if source in values}}
