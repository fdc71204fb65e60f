"""The paired bootstrap against a slow, literal one, and matches against the evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.claims.bootstrap import Interval, paired_interval
from benchmarks.claims.matches import Matches, match
from poise.evaluate.bootstrap import average_precision
from poise.evaluate.coco import measure_coco

IMAGES, CATEGORIES = 12, 3


def scenes(seed: int) -> dict[str, Any]:
    """Twelve images with up to six objects of three classes, a crowd in some."""
    rng = np.random.default_rng(seed)
    document: dict[str, Any] = {
        "images": [{"id": 10 * k, "width": 100, "height": 100} for k in range(IMAGES)],
        "categories": [{"id": 3 * k + 1, "name": str(k)} for k in range(CATEGORIES)],
        "annotations": [],
    }
    for image in range(IMAGES):
        for _ in range(rng.integers(0, 7)):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2)]
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": 10 * image,
                    "category_id": 3 * int(rng.integers(0, CATEGORIES)) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    return document


def detections(truth: dict[str, Any], seed: int, noise: float = 3.0) -> list[dict[str, Any]]:
    """Every object a few times and some that are not there; no two scores are equal."""
    rng = np.random.default_rng(seed)
    found = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": [float(value) for value in np.array(one["bbox"]) + rng.normal(0, noise, 4)],
            "score": float(rng.random()),
        }
        for one in truth["annotations"] * 2
    ]
    for _ in range(20):
        kind = 3 * int(rng.integers(0, CATEGORIES)) + 1
        box = [float(v) for v in (*rng.uniform(0, 60, 2), *rng.uniform(8, 40, 2))]
        found.append(
            {
                "image_id": 10 * int(rng.integers(0, IMAGES)),
                "category_id": kind,
                "bbox": box,
                "score": float(rng.random()),
            }
        )
    return found


@pytest.mark.parametrize("seed", range(6))
def test_ap_of_matches_is_the_evaluators(seed: int) -> None:
    truth = scenes(seed)
    found = detections(truth, seed + 100)
    measured = measure_coco(truth, found).metrics.ap
    assert average_precision(match(truth, found), np.ones(IMAGES)) == pytest.approx(measured, abs=1e-9)


def test_matches_survive_a_file(tmp_path: Path) -> None:
    truth = scenes(0)
    matches = match(truth, detections(truth, 1))
    matches.save(tmp_path / "new" / "run.npz")
    again = Matches.load(tmp_path / "new" / "run.npz")
    for name in ("image", "category", "right", "ignored", "objects"):
        assert np.array_equal(getattr(again, name), getattr(matches, name)), name


def with_copies(truth: dict[str, Any], found: list[dict[str, Any]], weights: np.ndarray[Any, Any]) -> float:
    """AP of a data set in which image i really stands ``weights[i]`` times, by the evaluator."""
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    results = []
    for image, weight in enumerate(weights):
        for _ in range(int(weight)):
            new = len(document["images"])
            document["images"].append({"id": new, "width": 100, "height": 100})
            for one in truth["annotations"]:
                if one["image_id"] == 10 * image:
                    document["annotations"].append({**one, "id": len(document["annotations"]) + 1, "image_id": new})
            results += [{**one, "image_id": new} for one in found if one["image_id"] == 10 * image]
    return measure_coco(document, results).metrics.ap


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_so_many_copies_of_an_image(seed: int) -> None:
    truth = scenes(seed)
    found = detections(truth, seed + 50)
    weights = np.bincount(np.random.default_rng(seed).integers(0, IMAGES, IMAGES), minlength=IMAGES)
    expected = with_copies(truth, found, weights)
    assert average_precision(match(truth, found), weights) == pytest.approx(expected, abs=1e-9)


def test_the_interval_is_the_literal_bootstraps() -> None:
    truth = scenes(7)
    better = [detections(truth, seed, noise=1.5) for seed in (1, 2)]
    worse = [detections(truth, seed, noise=4.0) for seed in (1, 2)]
    runs = [[match(truth, found) for found in scheme] for scheme in (better, worse)]
    found = paired_interval(*runs, draws=25, seed=3)
    generator = np.random.default_rng(3)
    gains = []
    for _ in range(25):
        seeds = generator.integers(0, 2, 2)
        weights = np.bincount(generator.integers(0, IMAGES, IMAGES), minlength=IMAGES)
        each = [with_copies(truth, better[s], weights) - with_copies(truth, worse[s], weights) for s in seeds]
        gains.append(sum(each) / 2)
    assert (found.low, found.high) == pytest.approx(tuple(100 * np.percentile(gains, [2.5, 97.5])), abs=1e-6)
    whole = [
        measure_coco(truth, b).metrics.ap - measure_coco(truth, w).metrics.ap
        for b, w in zip(better, worse, strict=True)
    ]
    assert found.difference == pytest.approx(100 * sum(whole) / 2, abs=1e-6)
    assert found.verdict == "shown", "noise of 4 px against 1.5 px cannot be missed"


def test_equal_runs_show_nothing() -> None:
    truth = scenes(2)
    runs = [match(truth, detections(truth, seed)) for seed in (1, 2, 3)]
    interval = paired_interval(runs, runs, draws=20)
    assert interval == Interval(0.0, 0.0, 0.0) and interval.verdict == "not shown"


def test_verdicts_and_the_smallest_difference() -> None:
    assert Interval(1.0, 0.1, 2.1).verdict == "shown" and Interval(1.0, 0.1, 2.1).smallest == pytest.approx(1.0)
    assert Interval(-1.0, -2.0, -0.1).verdict == "opposite"
    assert Interval(0.5, 0.0, 1.0).verdict == "not shown"


def test_runs_that_do_not_go_together_are_refused() -> None:
    truth = scenes(2)
    run = match(truth, detections(truth, 1))
    with pytest.raises(ValueError, match="2 runs against 1"):
        paired_interval([run, run], [run])
    other = Matches(run.image, run.category, run.right, run.ignored, run.objects[:5])
    with pytest.raises(ValueError, match="same images"):
        paired_interval([run], [other])
