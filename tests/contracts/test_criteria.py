"""What every criterion promises. A new one joins the list and inherits the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from contracts.data_dependence import DataDependence
from support.scenes import predictions_of, truth_of
from torch import Tensor

from poise.assign import ATSS, OTA, CenterRegion, DynamicSoftLabel, Fovea, MaxIoU, SimOTA, TaskAligned
from poise.assign.auto_assign import AutoAssign
from poise.assign.dual_weighting import DualWeighting
from poise.assign.free_anchor import FreeAnchor
from poise.assign.hungarian import Hungarian
from poise.assign.paa import PAA
from poise.assign.rep_points import FirstBoxOverlap
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
from poise.criteria.distribution import gflv2_criterion, iou_label
from poise.criteria.dual_weighting import DualWeightingCriterion, NegativeWeightFactors
from poise.criteria.fovea import FoveaCriterion
from poise.criteria.ota import OTACriterion
from poise.criteria.paa import PAACriterion
from poise.criteria.region import ProposalCriterion, RegionBoxCriterion, RegionCriterion
from poise.criteria.rep_points import RepPointsCriterion
from poise.criteria.set_prediction import SetCriterion, iou_of_normalized_boxes
from poise.criteria.task_aligned import InitialCriterion, TaskAlignedCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.criteria.yolox import YOLOXCriterion
from poise.losses import focal, quality_focal, varifocal
from poise.structures import (
    DeltaPredictions,
    DistributionPredictions,
    GeometricPredictions,
    GroundTruth,
    JointDeltaPredictions,
    JointDistributionPredictions,
    JointPredictions,
    PairWeights,
    Predictions,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    RegionPredictions,
    map_tensors,
)


@dataclass(frozen=True)
class Case:
    criterion: Any
    assigner: Any
    kind: type[Predictions]


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
    "guided": Case(nanodet_plus_criterion(), DynamicSoftLabel(), DistributionPredictions),
}

pytestmark = pytest.mark.parametrize("name", CRITERIA)


def alive(predictions: Predictions) -> tuple[Predictions, list[Tensor]]:
    """The predictions as leaves, but for the priors."""
    leaves: list[Tensor] = []

    def wake(t: Tensor) -> Tensor:
        leaves.append(t.clone().requires_grad_())
        return leaves[-1]

    priors = predictions.priors
    woken = map_tensors(predictions, wake)
    return type(woken)(**{**vars(woken), "priors": priors}), leaves


def losses_of(name: str, predictions: Predictions, truth: GroundTruth) -> dict[str, Tensor]:
    case = CRITERIA[name]
    return case.criterion(predictions, case.assigner(predictions, truth), truth)


@pytest.mark.parametrize("counts", [[5, 0], [0, 0], [30, 1]])
def test_finite_losses_with_a_gradient_for_every_output(name: str, counts: list[int]) -> None:
    predictions, leaves = alive(predictions_of(CRITERIA[name].kind, 2, 0))
    losses = losses_of(name, predictions, truth_of(counts, 1))
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    reached = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert reached and all(grad.isfinite().all() for grad in reached)
    assert predictions.logits.grad is not None


def test_priors_that_do_not_count_have_no_gradient(name: str) -> None:
    """Boxes of negatives, and all predictions of ignored priors."""
    predictions, _ = alive(predictions_of(CRITERIA[name].kind, 1, 2))
    truth = truth_of([6], 3)
    assignment = CRITERIA[name].assigner(predictions, truth)
    torch.stack(list(CRITERIA[name].criterion(predictions, assignment, truth).values())).sum().backward()
    assert predictions.logits.grad is not None
    hard = assignment.hard() if isinstance(assignment, PairWeights) else assignment
    assert not predictions.logits.grad[hard.ignored].any()
    if predictions.boxes.grad is not None:
        assert not predictions.boxes.grad[~hard.positive].any()


def test_no_operation_depends_on_the_data(name: str) -> None:
    predictions, truth = predictions_of(CRITERIA[name].kind, 2, 6), truth_of([5, 0], 7)
    with DataDependence() as counted:
        losses_of(name, predictions, truth)
    assert not counted.found, dict(counted.found)


def test_one_graph(name: str) -> None:
    predictions, truth = predictions_of(CRITERIA[name].kind, 2, 8), truth_of([5, 2], 9)
    torch._dynamo.reset()
    compiled = torch.compile(lambda p, t: losses_of(name, p, t), backend="eager", fullgraph=True)
    for key, value in losses_of(name, predictions, truth).items():
        torch.testing.assert_close(compiled(predictions, truth)[key], value)


def test_gradient_equals_finite_differences(name: str) -> None:
    """In float64, of the total with respect to a class logit of a negative."""
    predictions, truth = predictions_of(CRITERIA[name].kind, 1, 10), truth_of([4], 11)
    assignment = CRITERIA[name].assigner(predictions, truth)
    hard = assignment.hard() if isinstance(assignment, PairWeights) else assignment
    prior = int(hard.negative[0].int().argmax())
    double = map_tensors(predictions, lambda t: t.double())
    wide = map_tensors(truth, lambda t: t.double() if t.is_floating_point() else t)

    def total(p: Predictions) -> Tensor:
        return torch.stack(list(CRITERIA[name].criterion(p, assignment, wide).values())).sum()

    woken, _ = alive(double)
    total(woken).backward()
    assert woken.logits.grad is not None
    step = torch.zeros_like(double.logits)
    step[0, prior, 1] = 1e-2
    above, below = (total(type(double)(**{**vars(double), "logits": double.logits + s * step})) for s in (1, -1))
    assert float(above - below) / 2e-2 == pytest.approx(float(woken.logits.grad[0, prior, 1]), rel=1e-3, abs=1e-9)
