"""Parts as values and as data: an assigner, sampler or criterion becomes a name with options, and is built from it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, get_type_hints

from poise import losses
from poise.assign import MaxIoU, TaskAligned, TopScores
from poise.assign.center_priors import DistanceCenterPrior, GaussianCenterPrior, ThresholdedCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import BySize, LinearIoU, NormalizedIoU, box_likelihood, overlap_power
from poise.assign.free_anchor import as_topk, lowest_first, offsets_of_boxes, offsets_of_head
from poise.assign.rep_points import NearestPoint
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.boxes import DeltaCoder, LogDistances
from poise.criteria.distribution import (
    focal_of_logits,
    iou_label,
    qfl_of_joint_scores,
    qfl_of_logits,
    quality_label,
    vfl_of_logits,
)
from poise.criteria.dual_weighting import NegativeWeightFactors
from poise.criteria.fovea import fovea_focal
from poise.criteria.matched_labels import (
    IoUAware,
    Matchability,
    PositionSupervised,
    matched_iou,
    matched_iou_of_normalized_boxes,
)
from poise.criteria.rep_points import InitialPointsCriterion
from poise.criteria.set_prediction import iou_of_normalized_boxes
from poise.criteria.task_aligned import focal_of_scores, qfl_of_scores, vfl_of_scores
from poise.losses import hard_label, num_positives, num_positives_clamped
from poise.models.notation import Part, parse_part
from poise.models.options import check_options, option_types
from poise.plugins import with_origins
from poise.sample import OHEM, InstanceBalanced, IoUBalanced, RandomSelection
from poise.similarities import GCD, NWD, SimD
from poise.suggestions import did_you_mean

Made = TypeVar("Made")
Build = Callable[..., object]

FUNCTIONS = (
    *(losses.focal, losses.quality_focal, losses.varifocal, losses.binary_cross_entropy),
    *(losses.smooth_l1, losses.l1, losses.balanced_l1, focal_of_logits, vfl_of_logits),
    *(focal_of_scores, qfl_of_scores, vfl_of_scores),
    *(losses.iou, losses.giou, losses.diou, losses.ciou, fovea_focal, qfl_of_logits, qfl_of_joint_scores),
    *(hard_label, iou_label, quality_label, iou_of_normalized_boxes, num_positives, num_positives_clamped),
    *(matched_iou, matched_iou_of_normalized_boxes),
    *(box_likelihood, overlap_power, lowest_first, as_topk, offsets_of_boxes, offsets_of_head),
    *(NegativeWeightFactors.probability_and_importance, NegativeWeightFactors.probability_only),
    *(NegativeWeightFactors.importance_only, NegativeWeightFactors.neither, NegativeWeightFactors.complement),
)
VALUES: dict[str, Build] = {  # what options of parts may be besides literals: classes, and functions by their own name
    "max_iou": MaxIoU,
    "task_aligned": TaskAligned,
    "top_scores": TopScores,
    "nearest_point": NearestPoint,
    "initial_points": InitialPointsCriterion,
    "gaussian_center_prior": GaussianCenterPrior,
    "thresholded_center_prior": ThresholdedCenterPrior,
    "distance_center_prior": DistanceCenterPrior,
    "top_k_center_prior": TopKCenterPrior,
    "receptive_field_candidates": ReceptiveFieldCandidates,
    "nwd": NWD,
    "simd": SimD,
    "gcd": GCD,
    "by_size": BySize,
    "normalized_iou": NormalizedIoU,
    "linear_iou": LinearIoU,
    "delta_coder": DeltaCoder,
    "log_distances": LogDistances,
    "matchability": Matchability,
    "iou_aware": IoUAware,
    "position_supervised": PositionSupervised,
    "random_selection": RandomSelection,
    "iou_balanced": IoUBalanced,
    "instance_balanced": InstanceBalanced,
    "hardest": OHEM,
    **{function.__name__: function for function in FUNCTIONS},
}


def to_part(value: object, kind: str, known: Mapping[str, Build]) -> Part:
    """Return the name and options of a part, from which :func:`build_part` makes an equal one.

    Args:
        value: a part, or its text.
        kind: ``assigner``, ``sampler`` or ``criterion``, for messages.
        known: the registry of this kind.

    Raises:
        ValueError: the class of the part has no name, or an option is neither a literal nor one of ``VALUES``.
    """
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return parse_part(value)
    found = [part for name, build in known.items() if (part := _described(value, name, build, kind)) is not None]
    if found:
        return min(found, key=lambda part: len(part.options or {}))
    made = type(value).__name__ if not isinstance(value, type) else value.__name__
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", made).lower()
    if isinstance(value, type):
        raise ValueError(f"{kind}={made} is a class: give a value, {made}(…)")
    raise ValueError(
        f"{kind}={made}(…): a saved model could not be built again, because {made} has no name. Call "
        f"poise.register_{kind}('{name}', {made}) first"
    )


def build_part(
    part: Part, kind: str, known: Mapping[str, Callable[..., Made]], context: Mapping[str, object] | None = None
) -> Made:
    """Build a part.

    Args:
        context: options that the model determines, used where the part has them and gives no value.

    Raises:
        ValueError: an unknown name, an unknown option or a wrong value; the message lists the known ones.
    """
    if part.name not in known:
        names = ", ".join(with_origins(kind, known))
        raise ValueError(f"no {kind} '{part.name}'{did_you_mean(part.name, known)}; there are {names or 'none'}")
    build, owner = known[part.name], f"{kind} '{part.name}'"
    options = {option: _resolved(value, owner) for option, value in (part.options or {}).items()}
    check_options(owner, build, options)
    types = option_types(build)
    options = {**{name: value for name, value in (context or {}).items() if name in types}, **options}
    try:
        return build(**options)
    except TypeError as error:
        raise ValueError(f"{owner}: {error}; it has the options {', '.join(types) or 'none'}") from error


def made_type(build: Build) -> type | None:
    """Return the type that a class or an annotated function makes; None where it is not declared."""
    plain = build.func if isinstance(build, partial) else build
    made = plain if isinstance(plain, type) else get_type_hints(plain).get("return")
    return made if isinstance(made, type) else None


def _resolved(value: object, owner: str) -> object:
    """The value of an option: parts within it are built, functions looked up."""
    if isinstance(value, tuple):
        return tuple(_resolved(item, owner) for item in value)
    if not isinstance(value, Part):
        return value
    if value.name not in VALUES:
        close = did_you_mean(value.name, VALUES) or f"; words stand in quotes, parts are {', '.join(VALUES)}"
        raise ValueError(f"{owner}: '{value.name}' is neither a literal nor the name of a part{close}")
    build = VALUES[value.name]
    if isinstance(build, type):
        return build_part(value, "part", VALUES)
    options = {name: _resolved(item, owner) for name, item in (value.options or {}).items()}
    check_options(f"function '{value.name}'", build, options)
    return partial(build, **options) if options else build


def _described(value: object, name: str, build: Build, kind: str) -> Part | None:
    """The part of this name that equals ``value``, or None where ``build`` makes other things."""
    if made_type(build) is not type(value):
        return None
    parameters = inspect.signature(build).parameters
    if not all(hasattr(value, option) for option in parameters):
        return None
    required = any(one.default is inspect.Parameter.empty for one in parameters.values())
    default = None if required else build()
    options = {}
    for option, parameter in parameters.items():
        own = getattr(value, option)
        if not _same(own, parameter.default if default is None else getattr(default, option)):
            options[option] = _as_data(own, f"{kind} '{name}': {option}")
    part = Part(name, options)
    whole = isinstance(build, (type, partial))  # a function may fix what is no option of it
    return part if whole or build_part(part, kind, {name: build}) == value else None


def _as_data(value: object, where: str) -> object:
    """A literal, or the part by which a value is written."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_as_data(item, where) for item in value)
    function = value.func if isinstance(value, partial) else value
    for name, known in VALUES.items():
        if known is function:
            options = value.keywords if isinstance(value, partial) else None
            return Part(name, None if options is None else {key: _as_data(one, where) for key, one in options.items()})
        if isinstance(known, type) and (part := _described(value, name, known, "part")) is not None:
            return part
    raise ValueError(f"{where}={value!r} cannot be stored: it is neither a literal nor one of {', '.join(VALUES)}")


def _same(one: object, other: object) -> bool:
    if isinstance(one, partial) and isinstance(other, partial):
        return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
    return one is other or (type(one) is type(other) and bool(one == other))
