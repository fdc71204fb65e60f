"""Error types against corrected detections, thresholds by trying all, slices against evaluations of parts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth

from poise.evaluate import analyze, match_by_score, measure_coco, write_analysis_figures
from poise.evaluate.matching import image_errors
from poise.evaluate.slices import highest_overlaps
from poise.evaluate.truth import truth_columns

IMAGES = ("a", "b")


def annotation(number: int, image: str, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def found(image: str, category: int, bbox: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


TRUTH: dict[str, Any] = {
    "images": [{"id": name, "width": 200, "height": 100} for name in IMAGES],
    "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    "annotations": [
        annotation(1, "a", 5, [0, 0, 40, 40]),
        annotation(2, "a", 6, [100, 0, 40, 40]),
        annotation(3, "b", 5, [0, 0, 20, 20]),
        annotation(4, "b", 6, [100, 50, 40, 40]),
    ],
}
RIGHT = [found(one["image_id"], one["category_id"], one["bbox"], 0.5 - one["id"] / 100) for one in TRUTH["annotations"]]


def ap50(truth: dict[str, Any], detections: list[dict[str, Any]]) -> float:
    return measure_coco(truth, detections).metrics.ap50


@pytest.mark.parametrize(
    ("kind", "error", "corrected"),
    [
        ("classification", found("a", 6, [0, 0, 40, 40], 0.9), []),
        ("localization", found("a", 5, [25, 0, 40, 40], 0.9), []),
        ("both", found("a", 6, [25, 0, 40, 40], 0.9), []),
        ("background", found("b", 5, [60, 60, 20, 20], 0.9), []),
    ],
)
def test_an_error_costs_the_ap_that_its_correction_gains(
    kind: str, error: dict[str, Any], corrected: list[Any]
) -> None:
    """The object near the error is detected as well, so the correction removes the error."""
    detections = [error, *RIGHT]
    errors = {one.name: one for one in analyze(TRUTH, detections).errors}
    assert errors[kind].count == 1 and sum(one.count for one in errors.values()) == 1
    gained = ap50(TRUTH, RIGHT) - ap50(TRUTH, detections)
    assert gained > 0.05 and errors[kind].ap_lost == pytest.approx(gained)
    assert all(one.ap_lost == 0 for name, one in errors.items() if name != kind)


def test_errors_of_objects_that_nothing_else_finds() -> None:
    """A wrong class is corrected to the right one, an inexact box to the exact one, a missed object is left out."""
    without = [one for one in RIGHT if one["image_id"] != "a" or one["category_id"] != 5]
    wrong_class = {one.name: one for one in analyze(TRUTH, [found("a", 6, [0, 0, 40, 40], 0.9), *without]).errors}
    corrected = ap50(TRUTH, [found("a", 5, [0, 0, 40, 40], 0.9), *without])
    before = ap50(TRUTH, [found("a", 6, [0, 0, 40, 40], 0.9), *without])
    assert wrong_class["classification"].ap_lost == pytest.approx(corrected - before)
    inexact = {one.name: one for one in analyze(TRUTH, [found("a", 5, [25, 0, 40, 40], 0.9), *without]).errors}
    assert inexact["localization"].ap_lost == pytest.approx(
        corrected - ap50(TRUTH, [found("a", 5, [25, 0, 40, 40], 0.9), *without])
    )
    missed = {one.name: one for one in analyze(TRUTH, without).errors}
    rest = {**TRUTH, "annotations": TRUTH["annotations"][1:]}
    assert missed["missed"].count == 1
    assert missed["missed"].ap_lost == pytest.approx(ap50(rest, without) - ap50(TRUTH, without))
    twice = [*RIGHT[:1], found("a", 5, [1, 0, 40, 40], 0.48), *RIGHT[1:]]
    duplicates = {one.name: one for one in analyze(TRUTH, twice).errors}
    assert duplicates["duplicate"].count == 1
    assert duplicates["duplicate"].ap_lost == pytest.approx(ap50(TRUTH, RIGHT) - ap50(TRUTH, twice))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_of_each_class_is_found_by_trying_all(seed: int) -> None:
    truth = random_truth(seed)
    detections = random_detections(seed, truth, ties=False)
    analysis, matches = analyze(truth, detections), match_by_score(truth, detections)
    assert [one.name for one in analysis.thresholds] == [one["name"] for one in truth["categories"]]
    for k, best in enumerate(analysis.thresholds):
        wanted = matches.valid & (matches.truth.category == k)
        best_f1 = 0.0
        for score in matches.detected.scores:
            shown = (matches.detected.scores >= score) & (matches.detected.category == k) & ~matches.ignored
            right = int((shown & (matches.index >= 0)).sum())
            best_f1 = max(best_f1, 2 * right / (int(shown.sum()) + int(wanted.sum())) if wanted.any() else 0)
        assert best.f1 == pytest.approx(best_f1) if wanted.any() else best.f1 != best.f1


def test_calibration_by_hand() -> None:
    detections = [*RIGHT[:2], found("a", 5, [150, 50, 20, 20], 0.49), found("b", 5, [150, 0, 20, 20], 0.05)]
    calibration = analyze(TRUTH, detections).calibration
    assert [(one.count, one.precision) for one in calibration.bins] == [(1, 0.0), (3, pytest.approx(2 / 3))]
    low, high = 0.05, abs((0.49 + 0.48 + 0.49) / 3 - 2 / 3)
    assert calibration.error == pytest.approx((low + 3 * high) / 4) and calibration.largest == pytest.approx(high)


@pytest.mark.parametrize("seed", range(2))
def test_slices_are_evaluations_of_parts(seed: int) -> None:
    truth = random_truth(seed, images=16)
    detections = random_detections(seed, truth)
    slices = {(one.group, one.name): one for one in analyze(truth, detections).slices}
    metrics = measure_coco(truth, detections).metrics
    assert slices["area of the object", "32² to 96²"].ap == pytest.approx(metrics.ap_medium, nan_ok=True)
    assert slices["area of the object", "96² and more"].ap == pytest.approx(metrics.ap_large, nan_ok=True)
    objects = {one["id"]: 0 for one in truth["images"]}
    for one in truth["annotations"]:
        objects[one["image_id"]] += not one["iscrowd"]
    few = [image for image, count in objects.items() if 1 <= count <= 4]
    part = {
        **truth,
        "images": [one for one in truth["images"] if one["id"] in few],
        "annotations": [one for one in truth["annotations"] if one["image_id"] in few],
    }
    measured = measure_coco(part, [one for one in detections if one["image_id"] in few]).metrics
    shown = slices["objects per image", "1 to 4"]
    assert (shown.ap, shown.ap50) == pytest.approx((measured.ap, measured.ap50))
    assert shown.images == len(few) and shown.objects == measured.counts.objects
    assert sum(one.objects for (group, _), one in slices.items() if group == "overlap of the object") == sum(
        objects.values()
    )


def test_the_overlap_of_objects_is_of_one_image_and_without_crowds() -> None:
    records = [
        annotation(1, "a", 5, [0, 0, 10, 10]),
        annotation(2, "b", 5, [0, 0, 10, 10]),
        annotation(3, "a", 6, [0, 0, 10, 5]),
        annotation(4, "b", 6, [0, 0, 10, 10], iscrowd=1),
    ]
    assert highest_overlaps(truth_columns({**TRUTH, "annotations": records})).tolist() == [0.5, 0, 0.5, 0]


def test_slices_without_objects_say_so() -> None:
    analysis = analyze(TRUTH, RIGHT)
    empty = [one for one in analysis.slices if not one.objects]
    assert {one.name for one in empty} >= {"below 16²", "0.1 to 0.3"}
    assert all(one.ap != one.ap and one.ap50 != one.ap50 for one in empty)
    assert analysis.table().count("no objects") >= len(empty)


def test_label_errors_name_detection_annotation_and_image() -> None:
    detections = [*RIGHT[1:], found("b", 6, [150, 0, 20, 20], 0.95), found("a", 6, [0, 0, 40, 40], 0.8)]
    first, second = analyze(TRUTH, detections).label_errors
    assert (first.kind, first.image_id, first.detection, first.annotation) == ("missing annotation", "b", 3, None)
    assert (second.kind, second.detection, second.annotation) == ("wrong class", 4, 0)
    assert (second.name, second.annotated, second.iou) == ("dog", "cat", pytest.approx(1.0))


def test_images_with_the_lowest_f1_come_first() -> None:
    analysis = analyze(TRUTH, [*RIGHT, found("b", 6, [150, 0, 20, 20], 0.95)])
    assert [(one.image_id, one.found, one.false, one.missed) for one in analysis.images] == [
        ("b", 2, 1, 0),
        ("a", 2, 0, 0),
    ]
    matches = match_by_score(TRUTH, RIGHT[:1])
    errors = image_errors(matches, 0, 0.3)
    assert (errors.true_positives, errors.false_positives, errors.missed) == ((0,), (), (1,))


def test_nothing_to_analyze(tmp_path: Any) -> None:
    for truth, detections in (({**TRUTH, "annotations": []}, RIGHT), (TRUTH, []), ({**TRUTH, "annotations": []}, [])):
        analysis = analyze(truth, detections)
        json.dumps(analysis.to_dict(), allow_nan=False)
        assert "no objects or no detections" in analysis.table()
        assert np.isnan(analysis.threshold.threshold)
        write_analysis_figures(analysis, tmp_path)


def test_lvis_is_analyzed_by_its_rules() -> None:
    """A class that is not verified in an image is no error there."""
    truth = {
        **TRUTH,
        "images": [{**one, "neg_category_ids": [], "not_exhaustive_category_ids": []} for one in TRUTH["images"]],
        "categories": [{**one, "frequency": "f"} for one in TRUTH["categories"]],
        "annotations": [one for one in TRUTH["annotations"] if (one["image_id"], one["category_id"]) != ("b", 6)],
    }
    analysis = analyze(truth, [*RIGHT[:3], found("b", 6, [150, 0, 20, 20], 0.95)])
    errors = {one.name: one.count for one in analysis.errors}
    assert errors["background"] == 0 and analysis.ap50 == pytest.approx(1.0)
