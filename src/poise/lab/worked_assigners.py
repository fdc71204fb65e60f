"""Which steps belong to which assigner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from poise.assign import (
    ATSS,
    OTA,
    PAA,
    RFLA,
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
    TopScores,
)
from poise.assign.best_anchor import BestAnchor
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.boxes import iou
from poise.lab import worked_costs, worked_fields, worked_priors, worked_weights
from poise.lab.worked_example import Notebook, Outcome
from poise.protocols import Assigner
from poise.structures import Assignment, PairWeights


def best_anchor_steps(assigner: BestAnchor, note: Notebook, own: Assignment) -> Outcome:
    """The steps of the inner assigner, then one anchor of each cell."""
    inner = assigner.assigner
    assignment = inner(note.predictions, note.truth)
    outcome = steps_of(inner)(inner, note, assignment)
    overlap = iou(note.predictions.priors.boxes.float(), assignment.boxes(note.truth))
    note.add(
        "anchor IoU",
        "IoU of the anchor with its object",
        f"the largest of the {assigner.count} of a cell is positive",
        "N",
        overlap,
    )
    return replace(
        outcome, positive=own.positive, rule=f"{outcome.rule}, and the anchor of the cell with the largest IoU"
    )


Steps = Callable[[Any, Notebook, Any], Outcome]
STEPS: dict[type[Any], Steps] = {
    ATSS: worked_priors.atss_steps,
    MaxIoU: worked_priors.max_iou_steps,
    FirstBoxOverlap: worked_priors.first_box_steps,
    CenterRegion: worked_priors.center_region_steps,
    Fovea: worked_priors.fovea_steps,
    NearestPoint: worked_priors.nearest_point_steps,
    RFLA: worked_fields.rfla_steps,
    BestAnchor: best_anchor_steps,
    DynamicSoftLabel: worked_costs.dynamic_k_steps,
    SimOTA: worked_costs.dynamic_k_steps,
    OTA: worked_costs.ota_steps,
    Hungarian: worked_costs.hungarian_steps,
    TopScores: worked_costs.top_scores_steps,
    TaskAligned: worked_weights.task_aligned_steps,
    PAA: worked_weights.paa_steps,
    DualWeighting: worked_weights.dual_weighting_steps,
    AutoAssign: worked_weights.auto_assign_steps,
    FreeAnchor: worked_weights.free_anchor_steps,
}


def steps_of(assigner: object) -> Steps:
    """Return the steps of a kind of assigner; of one that the lab does not know, the result alone."""
    return STEPS.get(type(assigner), _result_alone)


def _result_alone(assigner: Assigner, note: Notebook, own: Assignment | PairWeights) -> Outcome:
    hard = own.hard()
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", iou(note.predicted, note.boxes).nan_to_num())
    number = torch.arange(note.truth.labels.shape[1])[:, None]
    taken = (number == hard.index[:, None]) & hard.positive[:, None]
    weights = own.pairs()
    note.pairs("taken", "assigned", "the result of the assigner", taken)
    about = f"The lab does not know the steps of {type(assigner).__name__}: its result alone is shown."
    return Outcome(about, taken, taken, hard.index, hard.positive, "IoU", ignored=hard.ignored, weights=weights)
