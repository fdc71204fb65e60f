"""A loss for rare classes in a detector: ``create_model("faster_rcnn_r50_fpn", class_balance="seesaw")``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from poise import losses
from poise.branches.region import RegionStage
from poise.criteria.class_totals import ClassTotals
from poise.criteria.equalization_v2 import EqualizationV2, EqualizationV2Criterion
from poise.criteria.equalized_focal import EqualizedFocal, EqualizedFocalCriterion
from poise.criteria.fovea import fovea_focal
from poise.criteria.region import RegionCriterion
from poise.criteria.seesaw import Seesaw, SeesawCriterion
from poise.detectors import DenseBranch
from poise.detectors.parts import dense_branch, region_stage
from poise.losses import hard_label
from poise.models.notation import Part
from poise.models.schemes import ClassHead
from poise.models.values import build_part
from poise.nn.layers import prior_bias
from poise.structures import ObjectnessRegionPredictions, SigmoidRegionPredictions

ClassBalance = Seesaw | EqualizedFocal | EqualizationV2

CLASS_BALANCE: dict[str, Callable[..., ClassBalance]] = {
    "seesaw": Seesaw,
    "equalized_focal": EqualizedFocal,
    "equalization_v2": EqualizationV2,
}


def balance_classes(network: nn.Module, part: Part, model: str) -> None:
    """Train the classes of a detector with another loss, whose running totals are buffers ``class_totals``.

    Raises:
        ValueError: the loss is unknown, or not defined for the class loss of the model.
    """
    loss = build_part(part, "class_balance", CLASS_BALANCE)
    branch, stage = dense_branch(network), region_stage(network)
    reason = ""
    if isinstance(loss, EqualizedFocal):
        reason = _equalize(branch, loss) if branch else "it is defined for the focal loss of one-stage detectors"
    else:
        reason = _rebalance(stage, loss) if stage else "it is defined for the second stage of two-stage detectors"
    if reason:
        raise ValueError(
            f"class_balance='{part}' is not compatible with '{model}': {reason}; train.class_weights balances the "
            "classes of every model"
        )


def _rebalance(stage: RegionStage, loss: Seesaw | EqualizationV2) -> str:
    """Use a loss in the second stage, or return why it cannot be used."""
    criterion, head = stage.criterion, stage.head
    if not isinstance(criterion, RegionCriterion):
        return f"its criterion is {type(criterion).__name__}"
    made: SeesawCriterion | EqualizationV2Criterion
    if isinstance(loss, Seesaw):
        stage.class_totals = totals = ClassTotals(head.num_classes, 1, torch.int64)
        head.kind, made = ObjectnessRegionPredictions, SeesawCriterion(criterion, loss, totals)
    else:
        stage.class_totals = totals = ClassTotals(head.num_classes, 2)
        head.kind, made = SigmoidRegionPredictions, EqualizationV2Criterion(criterion, loss, totals)
        nn.init.constant_(head.classes.bias, prior_bias(0.001))  # as in the published code
    stage.criterion = cast(RegionCriterion, made)
    return ""


def _equalize(branch: DenseBranch, loss: EqualizedFocal) -> str:
    """Use equalized focal loss in a one-stage detector, or return why it cannot be used."""
    criterion: Any = branch.criterion
    parameters = _focal_parameters(getattr(criterion, "class_loss", None))
    if parameters is None:
        return f"the class loss of its {type(criterion).__name__} is not the focal loss of its logits"
    if getattr(criterion, "soft_label", hard_label) is not hard_label or not getattr(criterion, "hard_labels", True):
        return "its class targets are not 0 or 1"
    if parameters["gamma"] <= 0:
        return "the gamma of its focal loss must be greater than 0"
    branch.class_totals = totals = ClassTotals(cast(ClassHead, branch.head).num_classes, 2)
    made = EqualizedFocalCriterion(criterion, loss, totals, **parameters)
    if branch.hard_criterion is criterion:
        branch.hard_criterion = made
    branch.criterion = made
    return ""


def _focal_parameters(loss: object) -> dict[str, float] | None:
    """Return alpha and gamma of a focal loss of logits; None for another loss."""
    plain, given = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    own = {losses.focal: {"alpha": 0.25, "gamma": 2.0}, fovea_focal: {"alpha": 0.4, "gamma": 1.5}}
    return {**own[plain], **given} if plain in own else None
