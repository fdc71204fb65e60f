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
    if type(loss) is EqualizedFocal:
        reason = _equalize(branch, loss) if branch else "it is defined for the focal loss of one-stage detectors"
    else:
        use = _use_seesaw if type(loss) is Seesaw else _use_equalization_v2
        reason = _rebalance(stage, loss, use) if stage else "it is defined for the second stage of two-stage detectors"
    if reason:
        raise ValueError(
            f"class_balance='{part}' is not compatible with '{model}': {reason}; train.class_weights balances the "
            "classes of every model"
        )


def _rebalance(stage: RegionStage, loss: ClassBalance, use: Callable[..., object]) -> str:
    """Use a loss in the second stage, or return why it cannot be used."""
    if not isinstance(stage.criterion, RegionCriterion):
        return f"its criterion is {type(stage.criterion).__name__}"
    stage.criterion = cast(RegionCriterion, use(stage, stage.criterion, loss))
    return ""


def _use_seesaw(stage: RegionStage, criterion: RegionCriterion, loss: Seesaw) -> SeesawCriterion:
    stage.head.kind = ObjectnessRegionPredictions
    stage.class_totals = totals = ClassTotals(stage.head.num_classes, 1, torch.int64)
    return SeesawCriterion(criterion, loss, totals)


def _use_equalization_v2(
    stage: RegionStage, criterion: RegionCriterion, loss: EqualizationV2
) -> EqualizationV2Criterion:
    stage.head.kind = SigmoidRegionPredictions
    nn.init.constant_(stage.head.classes.bias, prior_bias(0.001))  # as in the published code
    stage.class_totals = totals = ClassTotals(stage.head.num_classes, 2)
    return EqualizationV2Criterion(criterion, loss, totals)


def _equalize(branch: DenseBranch, loss: EqualizedFocal) -> str:
    """Use equalized focal loss in a one-stage detector, or return why it cannot be used."""
    criterion: Any = branch.criterion
    own = vars(criterion)
    parameters = _focal_parameters(own.get("class_loss"))
    if parameters is None:
        return f"the class loss of its {type(criterion).__name__} is not the focal loss of its logits"
    if own.get("soft_label", hard_label) is not hard_label or not own.get("hard_labels", True):
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
