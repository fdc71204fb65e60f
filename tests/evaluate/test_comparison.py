"""The paired bootstrap against one with whole evaluations, and comparisons by class and image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth

from poise.evaluate import compare, measure_coco
from poise.evaluate.bootstrap import average_precision, image_matches, interval, paired_differences
from poise.evaluate.comparison_figures import write_comparison_figures


def with_copies(truth: dict[str, Any], detections: list[dict[str, Any]], weights: np.ndarray[Any, Any]) -> Any:
    """Metrics of a data set in which image i really occurs ``weights[i]`` times, images in the order of their ids."""
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    results = []
    for image, weight in zip(sorted(one["id"] for one in truth["images"]), weights, strict=True):
        for _ in range(int(weight)):
            new = len(document["images"])
            document["images"].append({"id": new, "width": 640, "height": 640})
            for one in truth["annotations"]:
                if one["image_id"] == image:
                    document["annotations"].append({**one, "id": len(document["annotations"]) + 1, "image_id": new})
            results += [{**one, "image_id": new} for one in detections if one["image_id"] == image]
    return measure_coco(document, results).metrics


def two(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    truth = random_truth(seed)
    return truth, *(random_detections(s, truth, strays=n, ties=False) for s, n in ((seed + 10, 60), (seed + 20, 5)))


@pytest.mark.parametrize("seed", range(4))
def test_matches_have_the_ap_of_the_evaluator_with_and_without_copies(seed: int) -> None:
    truth, detections, _ = two(seed)
    matches, images = image_matches(truth, detections), len(truth["images"])
    assert average_precision(matches, np.ones(images)) == pytest.approx(measure_coco(truth, detections).metrics.ap)
    weights = np.bincount(np.random.default_rng(seed).integers(0, images, images), minlength=images)
    assert average_precision(matches, weights) == pytest.approx(with_copies(truth, detections, weights).ap)


def test_the_intervals_are_those_of_a_bootstrap_with_whole_evaluations() -> None:
    truth, first, second = two(7)
    comparison = compare(truth, first, second, draws=25, seed=3)
    generator, images = np.random.default_rng(3), len(truth["images"])
    drawn, drawn_of_class = [], []
    for _ in range(25):
        weights = np.bincount(generator.integers(0, images, images), minlength=images)
        a, b = (with_copies(truth, found, weights) for found in (first, second))
        drawn.append(b.ap - a.ap)
        drawn_of_class.append([y.ap - x.ap for x, y in zip(a.classes, b.classes, strict=True)])
    expected = measure_coco(truth, second).metrics.ap - measure_coco(truth, first).metrics.ap
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert vars(comparison.interval) == pytest.approx({"difference": expected, "low": low, "high": high})
    for k, one in enumerate(comparison.classes):
        known = [values[k] for values in drawn_of_class if values[k] == values[k]]
        if known:
            assert [one.interval.low, one.interval.high] == pytest.approx(np.percentile(known, [2.5, 97.5]).tolist())
        else:
            assert one.objects == 0 and one.interval.low != one.interval.low


def test_fewer_strays_are_better_and_equal_results_are_not_distinguishable(tmp_path: Path) -> None:
    truth, first, _ = two(1)
    images = {one["id"] for one in truth["images"]}
    strays = [
        {"image_id": image, "category_id": 2, "bbox": [0, 0, 5 + k, 5], "score": 0.99}
        for image in images
        for k in range(9)
    ]
    better = compare(truth, [*first, *strays], first, draws=40, names=("noisy", "clean"))
    assert better.interval.verdict == "better" and "clean is better" in better.sentence()
    assert better.images[0].fewer_errors > 0
    same = compare(truth, first, first, draws=10)
    assert (same.interval.difference, same.interval.low, same.interval.high) == (0, 0, 0)
    assert same.interval.verdict == "not distinguishable"
    for comparison in (better, same):
        json.dumps(comparison.to_dict(), allow_nan=False)
        write_comparison_figures(comparison, tmp_path)


def test_nothing_to_compare_is_said() -> None:
    truth, first, second = two(2)
    comparison = compare({**truth, "annotations": []}, first, second, draws=3)
    assert "no image has an object" in comparison.table() and comparison.interval.low != comparison.interval.low
    nothing = compare(truth, [], [], draws=3)
    assert nothing.ap == (0, 0) and nothing.images[0].missed[0] == nothing.images[0].missed[1]
    for wrong in ({"draws": 0}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="draws="):
            compare(truth, first, second, **wrong)  # type: ignore[arg-type]


def test_evaluations_of_other_images_cannot_be_paired() -> None:
    truth, first, _ = two(0)
    shorter = {**truth, "images": truth["images"][1:], "annotations": []}
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_differences([image_matches(truth, first)], [image_matches(shorter, [])], 1)
    assert interval(0.1, np.array([np.nan, 0.1, 0.1])).low == pytest.approx(0.1)
