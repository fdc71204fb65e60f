"""Another criterion for a detector: ``create_model("atss_r50_fpn", criterion="centerness(box_weight=1.0)")``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast, get_type_hints

from torch import nn

from poise.branches.region import RegionStage
from poise.criteria import (
    AnchorCriterion,
    CenternessCriterion,
    DistributionCriterion,
    RegionBoxCriterion,
    RegionCriterion,
    SetCriterion,
    atss_criterion,
    fcos_criterion,
    nanodet_plus_criterion,
)
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.criteria.distribution import gflv2_criterion, qfl_of_joint_scores
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.criteria.fovea import FoveaCriterion
from poise.criteria.matched_labels import is_matched_label, matched_iou, matched_iou_of_normalized_boxes
from poise.criteria.ota import OTACriterion
from poise.criteria.paa import PAACriterion
from poise.criteria.rep_points import RepPointsCriterion
from poise.criteria.task_aligned import TaskAlignedCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.criteria.yolox import YOLOXCriterion
from poise.detectors import DenseBranch, QueryDetector
from poise.detectors.parts import Supervised, dense_branch, is_query_detector, region_stage
from poise.losses import hard_label
from poise.models.notation import Part
from poise.models.options import option_types
from poise.models.schemes import plain_criterion, use_criterion
from poise.models.values import build_part, made_type
from poise.plugins import load_plugins
from poise.protocols import Criterion
from poise.structures import Predictions, QueryPredictions

Holder = QueryDetector | DenseBranch | RegionStage


def _published(criterion: Criterion) -> Callable[..., Criterion]:
    """The class of a criterion with the values of this one as defaults."""
    return partial(type(criterion), **vars(criterion))


CRITERIA: dict[str, Callable[..., Criterion]] = {
    "anchor": AnchorCriterion,
    "centerness": CenternessCriterion,
    "fcos": _published(fcos_criterion()),
    "atss": _published(atss_criterion()),
    "distribution": DistributionCriterion,
    "gflv2": _published(gflv2_criterion()),
    "nanodet_plus": _published(nanodet_plus_criterion()),
    "varifocal": VarifocalCriterion,
    "task_aligned": TaskAlignedCriterion,
    "fovea": FoveaCriterion,
    "rep_points": RepPointsCriterion,
    "paa": PAACriterion,
    "ota": OTACriterion,
    "yolox": YOLOXCriterion,
    "dual_weighting": DualWeightingCriterion,
    "auto_assign": AutoAssignCriterion,
    "free_anchor": FreeAnchorCriterion,
    "region": RegionCriterion,
    "region_box": RegionBoxCriterion,
    "set_prediction": SetCriterion,
}


def swap_criterion(network: nn.Module, part: Part, model: str) -> bool:
    """Replace the criterion of the detections by another, with the encoding of boxes of the model's own.

    That is the criterion of a dense head, of the second stage, or of the decoder. A bare name keeps the model's own
    criterion if it is of this kind.

    Returns:
        whether the criterion was replaced.

    Raises:
        ValueError: the criterion is unknown, or it reads what the head does not predict.
    """
    holder = _holder(network)
    if holder is None:
        raise ValueError(f"criterion='{part}': '{model}' has no criterion that can be replaced")
    if part.name not in CRITERIA:
        load_plugins()
    own = plain_criterion(holder.criterion)
    made = made_type(CRITERIA[part.name]) if part.name in CRITERIA else None
    reason = "" if made is None else _mismatch(holder, own, made)
    if reason:
        raise ValueError(f"criterion '{part.name}' is not compatible with '{model}': {reason}")
    coder = getattr(own, "coder", None)
    criterion = build_part(part, "criterion", CRITERIA, {} if coder is None else {"coder": coder})
    if reason := _label_mismatch(holder, own, criterion):
        raise ValueError(f"criterion '{part}' of '{model}': {reason}")
    if part.options is None and type(own) is type(criterion):
        return False
    if isinstance(holder, DenseBranch):
        use_criterion(holder, criterion)
    else:
        cast(Supervised, holder).criterion = criterion
    return True


def _mismatch(holder: Holder, own: object, made: type) -> str:
    """Why a criterion of the type ``made`` cannot read the predictions of a head, or an empty string."""
    read, predicted = _read_by(made), _predicted_by(holder)
    if not issubclass(predicted, read):
        return f"it reads {read.__name__}, the head returns {predicted.__name__}; its own is {type(own).__name__}"
    wanted, coder = option_types(made).get("coder"), getattr(own, "coder", None)
    if isinstance(wanted, type) and not isinstance(coder, wanted):
        return f"its boxes are encoded as {wanted.__name__}, those of the head as {type(coder).__name__}"
    return ""


def _label_mismatch(holder: Holder, own: object, criterion: Criterion) -> str:
    """Why the class loss of a criterion cannot read the class targets or the scores, or an empty string."""
    loss, soft_label = (vars(criterion).get(name) for name in ("class_loss", "soft_label"))
    if not is_matched_label(loss):
        return ""
    name = type(loss).__name__
    if vars(own).get("class_loss") is qfl_of_joint_scores:
        return f"{name} reads the class score alone, the score of this head is a product"
    if soft_label is hard_label:
        matched = matched_iou_of_normalized_boxes if _predicted_by(holder) is QueryPredictions else matched_iou
        return f"{name} reads the IoU of matched boxes: add soft_label={matched.__name__}"
    return ""


def _holder(network: nn.Module) -> Holder | None:
    """The module whose ``criterion`` is that of the detections."""
    if is_query_detector(network):
        return network
    return dense_branch(network) or region_stage(network)


def _predicted_by(holder: Holder) -> type:
    if isinstance(holder, QueryDetector):
        return QueryPredictions
    predicted = get_type_hints(cast("nn.Module", holder.head).forward).get("return", Predictions)
    return predicted if isinstance(predicted, type) else Predictions


def _read_by(criterion: type) -> type:
    read = get_type_hints(criterion.__call__).get("predictions", Predictions)
    return read if isinstance(read, type) else Predictions
