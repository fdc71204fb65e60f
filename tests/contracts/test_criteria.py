"""The contract of criteria (``poise.testing``): every criterion of the list keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from poise.assign import ATSS, OTA, CenterRegion, DynamicSoftLabel, Fovea, MaxIoU, SimOTA, TaskAligned
from poise.assign.auto_assign import AutoAssign
from poise.assign.dual_weighting import DualWeighting
from poise.assign.free_anchor import FreeAnchor
from poise.assign.hungarian import Hungarian
from poise.assign.paa import PAA
from poise.assign.rep_points import FirstBoxOverlap
from poise.assign.top_scores import TopScores
from poise.boxes import DeltaCoder
from poise.criteria import (
    AnchorCriterion,
    CenternessCriterion,
    DistributionCriterion,
    atss_criterion,
    fcos_criterion,
    nanodet_plus_criterion,
)
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.criteria.class_totals import ClassTotals
from poise.criteria.distribution import gflv2_criterion, iou_label
from poise.criteria.dual_weighting import DualWeightingCriterion, NegativeWeightFactors
from poise.criteria.equalization_v2 import EqualizationV2, EqualizationV2Criterion
from poise.criteria.equalized_focal import EqualizedFocal, EqualizedFocalCriterion
from poise.criteria.fovea import FoveaCriterion
from poise.criteria.matched_labels import Matchability, PositionSupervised, matched_iou
from poise.criteria.matched_labels import matched_iou_of_normalized_boxes as MATCHED
from poise.criteria.ota import OTACriterion
from poise.criteria.paa import PAACriterion
from poise.criteria.region import ProposalCriterion, RegionBoxCriterion, RegionCriterion
from poise.criteria.rep_points import RepPointsCriterion
from poise.criteria.seesaw import Seesaw, SeesawCriterion
from poise.criteria.set_prediction import SetCriterion, iou_of_normalized_boxes
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.criteria.yolox import YOLOXCriterion
from poise.losses import focal, quality_focal, varifocal
from poise.structures import (
    DeltaPredictions,
    DistributionPredictions,
    GeometricPredictions,
    JointDeltaPredictions,
    JointDistributionPredictions,
    JointPredictions,
    ObjectnessRegionPredictions,
    Predictions,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    RegionPredictions,
    SigmoidRegionPredictions,
)
from poise.testing.criteria import CHECKS, Case
from poise.testing.scenes import CLASSES


def totals(*columns: float) -> ClassTotals:
    """Totals that training has left, and that do not change while a check repeats a step."""
    made = ClassTotals(CLASSES, len(columns)).eval()
    made.totals += torch.arange(1.0, CLASSES + 1)[:, None] * torch.tensor(columns)
    return made


CRITERIA = {
    "anchor": Case(AnchorCriterion(), MaxIoU(), DeltaPredictions),
    "fcos": Case(fcos_criterion(), CenterRegion(1.5, (24, 60)), QualityPredictions),
    "atss": Case(atss_criterion(), ATSS(5), QualityPredictions),
    "distribution": Case(DistributionCriterion(), ATSS(5), DistributionPredictions),
    "joint_distribution": Case(gflv2_criterion(), ATSS(5), JointDistributionPredictions),
    "dual_weighting": Case(DualWeightingCriterion(), DualWeighting(), JointPredictions),
    "dual_weighting_article": Case(
        DualWeightingCriterion(negative_weight=NegativeWeightFactors.complement),
        DualWeighting(mu_total=5.0),
        JointPredictions,
    ),
    "atss_varifocal": Case(
        CenternessCriterion(class_loss=varifocal, soft_label=iou_label), ATSS(5), QualityPredictions
    ),
    "anchor_varifocal": Case(AnchorCriterion(class_loss=varifocal, soft_label=iou_label), MaxIoU(), DeltaPredictions),
    "varifocal": Case(VarifocalCriterion(), ATSS(5), RefinedPredictions),
    "varifocal_one_box": Case(VarifocalCriterion(), ATSS(5), Predictions),
    "focal_instead_of_varifocal": Case(VarifocalCriterion(focal, hard_labels=True), ATSS(5), RefinedPredictions),
    "proposal": Case(ProposalCriterion(), MaxIoU(0.7, 0.3, 0.3), DeltaPredictions),
    "region": Case(RegionCriterion(DeltaCoder((0.1, 0.1, 0.2, 0.2))), MaxIoU(0.5, 0.5), RegionPredictions),
    "region_box": Case(RegionBoxCriterion(DeltaCoder()), MaxIoU(0.5, 0.5), RegionPredictions),
    "seesaw": Case(
        SeesawCriterion(RegionCriterion(DeltaCoder()), Seesaw(), totals(10.0)),  # type: ignore[arg-type]
        MaxIoU(0.5, 0.5),
        ObjectnessRegionPredictions,
    ),
    "equalization_v2": Case(
        EqualizationV2Criterion(RegionCriterion(DeltaCoder()), EqualizationV2(), totals(0.7, 1.0)),  # type: ignore[arg-type]
        MaxIoU(0.5, 0.5),
        SigmoidRegionPredictions,
    ),
    "equalized_focal": Case(
        EqualizedFocalCriterion(AnchorCriterion(), EqualizedFocal(), totals(0.7, 1.0)), MaxIoU(), DeltaPredictions
    ),
    "aligned": Case(TaskAlignedCriterion(), TaskAligned(), GeometricPredictions),
    "aligned_start": Case(InitialCriterion(), ATSS(5), GeometricPredictions),
    "rep_points": Case(RepPointsCriterion(), FirstBoxOverlap(), RefinedPredictions),
    "rep_points_varifocal": Case(RepPointsCriterion(varifocal, iou_label), FirstBoxOverlap(), RefinedPredictions),
    "fovea": Case(FoveaCriterion(), Fovea(), DeltaPredictions),
    "fovea_varifocal": Case(FoveaCriterion(class_loss=varifocal, soft_label=iou_label), Fovea(), DeltaPredictions),
    "auto_assign": Case(AutoAssignCriterion(), AutoAssign(), QualityPredictions),
    "free_anchor": Case(FreeAnchorCriterion(), FreeAnchor(), DeltaPredictions),
    "paa": Case(PAACriterion(), PAA(), GeometricPredictions),
    "ota": Case(OTACriterion(), OTA(iterations=5), GeometricPredictions),
    "yolox": Case(YOLOXCriterion(DeltaCoder()), SimOTA(), JointDeltaPredictions),
    "yolox_late": Case(YOLOXCriterion(DeltaCoder(), offset_weight=1.0), SimOTA(), JointDeltaPredictions),
    "set_prediction": Case(SetCriterion(), Hungarian(), QueryPredictions),
    "set_prediction_quality": Case(SetCriterion(quality_focal, iou_of_normalized_boxes), Hungarian(), QueryPredictions),
    "set_prediction_per_object": Case(SetCriterion(per_object=True), TopScores(), QueryPredictions),
    "matchability": Case(SetCriterion(Matchability(detach_factor=False), MATCHED), Hungarian(), QueryPredictions),
    "atss_position_supervised": Case(
        CenternessCriterion(class_loss=PositionSupervised(), soft_label=matched_iou), ATSS(5), QualityPredictions
    ),
    "guided": Case(nanodet_plus_criterion(), DynamicSoftLabel(), DistributionPredictions),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CRITERIA)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(CRITERIA[name])
