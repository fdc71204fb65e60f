"""Worked examples of assignments: the steps give the assigner's result, the matrices are those of a literal form."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scenes import CLASSES, POINTS, STRIDES, predictions_of, truth_of
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torchvision.ops import box_iou

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
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.lab.worked_example import TooManyPairs, WorkedExample, work_out
from poise.lab.worked_figure import draw_example, matrix_columns
from poise.lab.worked_page import example_page
from poise.lab.worked_text import default_object, to_dict, to_text
from poise.nn.layers import retina_anchors
from poise.similarities import GCD, NWD, SimD
from poise.structures import GroundTruth, Predictions, QualityPredictions, QueryPredictions, RefinedPredictions

NAMES = [f"class {i}" for i in range(CLASSES)]
CASES: dict[str, tuple[Any, Any, Any]] = {
    "atss": (ATSS(5), QualityPredictions, None),
    "max_iou": (MaxIoU(0.4, 0.3), Predictions, None),
    "atss_simd": (ATSS(5, similarity=SimD()), QualityPredictions, None),
    "atss_covered": (ATSS(3, floor=16.0, cover=True), QualityPredictions, None),
    "max_iou_nwd": (MaxIoU(0.4, 0.3, similarity=NWD(20.0)), Predictions, None),
    "center_region_floor": (CenterRegion(1.5, (24, 60), floor=24.0), Predictions, POINTS),
    "task_aligned_gcd": (TaskAligned(similarity=GCD(), floor=24.0), QualityPredictions, None),
    "max_iou_crowd": (MaxIoU(0.4, 0.3, ignore_iof=0.3), Predictions, None),
    "center_region": (CenterRegion(1.5, (24, 60)), Predictions, POINTS),
    "best_anchor": (BestAnchor(CenterRegion(1.5, (24, 60)), 9), Predictions, retina_anchors(STRIDES)),
    "best_anchor_rfla": (BestAnchor(RFLA(anchors=9), 9), Predictions, retina_anchors(STRIDES)),
    "fovea": (Fovea(), Predictions, POINTS),
    "rfla": (RFLA(decay=0.5), Predictions, POINTS),
    "nearest_point": (NearestPoint(), RefinedPredictions, None),
    "first_box": (FirstBoxOverlap(MaxIoU(0.4, 0.3)), RefinedPredictions, None),
    "dynamic_soft_label": (DynamicSoftLabel(), Predictions, None),
    "rtmdet": (DynamicSoftLabel(13, 2.0, 4.0, 1.5), Predictions, None),
    "sim_ota": (SimOTA(), QualityPredictions, None),
    "ota": (OTA(), QualityPredictions, None),
    "task_aligned": (TaskAligned(4, 0.5, 2.5), QualityPredictions, None),
    "task_aligned_one": (TaskAligned(7, keep=1), QualityPredictions, None),
    "paa": (PAA(), QualityPredictions, None),
    "dual_weighting": (DualWeighting(), QualityPredictions, None),
    "rf_assigner": (DualWeighting(candidates=ReceptiveFieldCandidates(low=0.4)), QualityPredictions, POINTS),
    "auto_assign": (AutoAssign(), QualityPredictions, None),
    "free_anchor": (FreeAnchor(), QualityPredictions, None),
    "hungarian": (Hungarian(), QueryPredictions, None),
    "top_scores": (TopScores(3, 0.2), QueryPredictions, None),
    "hungarian_groups": (Hungarian(groups=3, repeats=2), QueryPredictions, None),
}


def scene(name: str, counts: list[int], seed: int, crowd: bool = False) -> tuple[Any, Predictions, GroundTruth]:
    assigner, kind, grid = CASES[name]
    return assigner, predictions_of(kind, len(counts), seed, grid), truth_of(counts, seed, crowd)


@pytest.mark.parametrize("name", CASES)
def test_the_steps_give_the_assigners_result(name: str) -> None:
    for seed in range(3):
        assigner, predictions, truth = scene(name, [0, 3, 12], seed, crowd=seed == 1)
        for image, count in enumerate(truth.valid.sum(1).tolist()):
            example = work_out(assigner, predictions, truth, image)
            assert example.differences == 0 and example.num_objects == count
            assert sum(example.positives()) == int((example.assigned >= 0).sum())
            for step in example.steps.values():
                sizes = {"M": count, "V": len(example.columns), "N": predictions.logits.shape[1]}
                assert all(sizes.get(a, n) == n for a, n in zip(step.axes, step.values.shape, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_values_that_are_not_finite_are_never_positive(name: str) -> None:
    assigner, predictions, truth = scene(name, [6], 4)
    logits = predictions.logits.clone()
    logits[:, ::3] = math.nan
    example = work_out(assigner, replace(predictions, logits=logits), truth)
    assert example.differences == 0 and (example.assigned[::3] < 0).all()
    assert "not finite: never positive" in to_text(example, default_object(example), NAMES)
    json.dumps(to_dict(example, NAMES), allow_nan=False)


def test_a_difference_is_counted() -> None:
    """An assigner that the lab takes for another one: the check of the result can fail."""

    class Shifted(ATSS):
        def __call__(self, predictions: Predictions, truth: GroundTruth) -> Any:
            found = super().__call__(predictions, truth)
            return replace(found, positive=found.positive.roll(1, 1))

    from poise.lab import worked_assigners

    worked_assigners.STEPS[Shifted] = worked_assigners.STEPS[ATSS]
    try:
        _, predictions, truth = scene("atss", [4], 0)
        example = work_out(Shifted(5), predictions, truth)
    finally:
        del worked_assigners.STEPS[Shifted]
    assert example.differences > 0 and "NOT the result of the assigner" in to_text(example, 0, NAMES)


def literal_costs(example: WorkedExample, assigner: DynamicSoftLabel) -> dict[str, Tensor]:
    """The article's sections 4.2 to 4.4 with loops over objects, in float64."""
    predictions, truth = example.predictions, example.truth
    objects, labels = truth.boxes[0].double(), truth.labels[0]
    centers, boxes = predictions.priors.centers[0].double(), predictions.boxes[0].double()
    inside = [
        [min(x - x1, y - y1, x2 - x, y2 - y) > 0 for x, y in centers.tolist()] for x1, y1, x2, y2 in objects.tolist()
    ]
    valid = torch.tensor(inside).any(0).nonzero().flatten()
    overlap = box_iou(boxes[valid], objects)
    z = predictions.logits[0, valid].double()
    cost, classes = torch.zeros_like(overlap), torch.zeros_like(overlap)
    for g in range(len(objects)):
        soft = one_hot(labels[g], CLASSES) * overlap[:, g, None]
        entropy = binary_cross_entropy_with_logits(z, soft, reduction="none")
        classes[:, g] = (entropy * (soft - z.sigmoid()).abs() ** 2).sum(1)
        cost[:, g] = classes[:, g] - assigner.iou_weight * (overlap[:, g] + 1e-7).log()
        if assigner.distance_beta is not None:
            middle = (objects[g, :2] + objects[g, 2:]) / 2
            distance = (centers[valid] - middle).norm(dim=1) / predictions.priors.strides[valid]
            cost[:, g] += assigner.distance_alpha ** (distance - assigner.distance_beta)
    best = overlap.topk(min(assigner.topk, len(valid)), 0).values
    k = best.sum(0).int().clamp(min=1)
    taken = torch.zeros_like(overlap, dtype=torch.bool)
    for g in range(len(objects)):
        taken[cost[:, g].argsort()[: k[g]], g] = True
    return {"valid": valid, "IoU": overlap.T, "class cost": classes.T, "cost": cost.T, "dynamic k": k, "taken": taken.T}


@pytest.mark.parametrize("name", ["dynamic_soft_label", "rtmdet"])
def test_matrices_of_dynamic_soft_labels_as_in_the_article(name: str) -> None:
    conflicts = 0
    for seed in range(4):
        assigner, predictions, truth = scene(name, [9], 20 + seed)
        example = work_out(assigner, predictions, truth)
        literal = literal_costs(example, assigner)
        assert torch.equal(example.columns, literal["valid"])
        for step in ("IoU", "class cost", "cost"):
            torch.testing.assert_close(example.steps[step].values.double(), literal[step], rtol=2e-5, atol=2e-5)
        assert torch.equal(example.steps["dynamic k"].values.int(), literal["dynamic k"])
        assert torch.equal(example.taken, literal["taken"])
        for one in example.conflicts:
            column = example.columns.tolist().index(one.prior)
            assert list(one.objects) == literal["taken"][:, column].nonzero().flatten().tolist()
            assert one.winner == int(literal["cost"][:, column].argmin())
        conflicts += len(example.conflicts)
    assert conflicts > 0


def test_candidates_and_thresholds_of_atss_one_object_at_a_time() -> None:
    assigner, predictions, truth = scene("atss", [7], 3)
    example, priors = work_out(assigner, predictions, truth), predictions.priors
    for m, box in enumerate(truth.boxes[0, :7]):
        middle, listed, start = (box[:2] + box[2:]) / 2, [], 0
        for size in priors.level_sizes:
            distance = (priors.centers[0, start : start + size] - middle).square().sum(1)
            listed += (distance.argsort(stable=True)[:5] + start).tolist()
            start += size
        assert example.steps["candidates"].values[m].tolist() == listed
        overlap = box_iou(priors.boxes[0, listed], box[None])[:, 0]
        expected = float(overlap.mean() + overlap.std())
        ranked = example.columns[example.candidates(m)].tolist()
        assert set(ranked) == set(listed)
        assert float(example.steps["threshold"].values[m]) == pytest.approx(expected, abs=1e-6)


def test_the_plan_of_ota_meets_the_supplies() -> None:
    assigner, predictions, truth = scene("ota", [5], 2)
    example = work_out(replace(assigner, iterations=400), predictions, truth)
    price, cost = example.steps["price"].values[example.columns], example.steps["cost"].values
    shipped = ((price - cost / assigner.temperature).exp()).double()
    share = shipped / shipped.amax(1, keepdim=True)
    torch.testing.assert_close(example.steps["plan"].values.double(), share, rtol=1e-3, atol=1e-5)
    best = example.steps["best IoU"].values.sum(1).floor().clamp(min=1)
    assert torch.equal(example.steps["supply"].values, best)


def test_five_hundred_objects_and_none(tmp_path: Path) -> None:
    _, predictions, _ = scene("dynamic_soft_label", [1], 0)
    pixels = torch.zeros(3, 96, 128, dtype=torch.uint8)
    many = work_out(DynamicSoftLabel(), predictions, truth_of([500], 0))
    assert many.num_objects == 500 and many.differences == 0
    text = to_text(many, default_object(many), NAMES)
    assert "… and 460 more objects" in text and len(text.splitlines()) < 120
    assert len(matrix_columns(many)) <= 160
    none = work_out(DynamicSoftLabel(), predictions, truth_of([0], 0))
    assert default_object(none) == -1 and "M = 0 objects" in to_text(none, -1, NAMES)
    for example in (many, none):
        number = default_object(example)
        draw_example(example, pixels, number, NAMES, title="title").savefig(tmp_path / "figure.png", dpi=40)
        page = example_page(
            example, (tmp_path / "figure.png").read_bytes(), number, NAMES, title="a <b> title", notes=["a note"]
        )
        assert "a &lt;b&gt; title" in page and "<b>" not in page and "the steps give the result of the assigner" in page


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.lab.worked_example.MAX_PAIRS", 1000)
    assigner, predictions, truth = scene("atss", [12], 0)
    with pytest.raises(TooManyPairs, match="are worked out: take a model with fewer priors"):
        work_out(assigner, predictions, truth)


def test_an_unknown_assigner_shows_its_result() -> None:
    class Mine:
        def __call__(self, predictions: Predictions, truth: GroundTruth) -> Any:
            return ATSS(5)(predictions, truth)

    _, predictions, truth = scene("atss", [4], 1)
    example = work_out(Mine(), predictions, truth)
    assert "does not know the steps of Mine" in example.about and example.differences == 0
    assert torch.equal(example.assigned, work_out(ATSS(5), predictions, truth).assigned)
