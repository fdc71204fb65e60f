"""LVIS numbers against the definition, written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth

from poise.evaluate import is_lvis, measure_lvis

IOUS = np.linspace(0.5, 0.95, 10)


def lvis_truth(seed: int, classes: int = 5) -> dict[str, Any]:
    """Random truth with the federation's fields."""
    rng = np.random.default_rng(seed)
    truth = random_truth(seed, images=14, classes=classes, crowd=0)
    classes_of: dict[int, set[int]] = {}
    for record in truth["annotations"]:
        classes_of.setdefault(record["image_id"], set()).add(record["category_id"])
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        positive = classes_of.get(image["id"], set())
        image["neg_category_ids"] = [i for i in ids if i not in positive and rng.random() < 0.4]
        image["not_exhaustive_category_ids"] = [i for i in positive if rng.random() < 0.3]
    for i, category in enumerate(truth["categories"]):
        category["frequency"] = "rcf"[i % 3]
    return truth


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def best_of_each_image(detections: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for image in {one["image_id"] for one in detections}:
        kept += sorted((d for d in detections if d["image_id"] == image), key=lambda d: -d["score"])[:limit]
    return kept


def literal_ap(truth: dict[str, Any], detections: list[dict[str, Any]], category: int, iou: float) -> float:
    """Average precision of one class by the rules of the LVIS paper, section 2 and its evaluation code's text."""
    outcomes, objects = [], 0
    for image in sorted(truth["images"], key=lambda record: record["id"]):
        gold = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        if not gold and category not in image["neg_category_ids"]:
            continue
        objects += len(gold)
        taken: set[int] = set()
        found = [d for d in detections if (d["image_id"], d["category_id"]) == (image["id"], category)]
        for one in sorted(found, key=lambda d: -d["score"]):
            options = [(overlap(one["bbox"], g["bbox"]), g["id"]) for g in gold if g["id"] not in taken]
            best = max(options, default=(0.0, -1))
            if best[0] >= min(iou, 1 - 1e-10):
                taken.add(best[1])
                outcomes.append((one["score"], True))
            elif category not in image["not_exhaustive_category_ids"]:
                outcomes.append((one["score"], False))
    if objects == 0:
        return math.nan
    outcomes.sort(key=lambda outcome: -outcome[0])
    right = np.cumsum([hit for _, hit in outcomes]) if outcomes else np.zeros(0)
    recall, precision = right / objects, right / np.arange(1, len(outcomes) + 1)
    levels = [max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]
    return float(np.mean(levels))


@pytest.mark.parametrize("seed", range(4))
def test_against_the_definition(seed: int) -> None:
    truth = lvis_truth(seed)
    detections = random_detections(seed, truth, strays=120, ties=False)
    assert is_lvis(truth)
    metrics = measure_lvis(truth, detections).metrics
    ids = [category["id"] for category in truth["categories"]]
    table = np.array([[literal_ap(truth, detections, i, iou) for iou in IOUS] for i in ids])
    assert [c.ap for c in metrics.classes] == pytest.approx(table.mean(1).tolist(), abs=1e-9, nan_ok=True)
    assert metrics.ap == pytest.approx(np.nanmean(table), abs=1e-9)
    assert metrics.ap50 == pytest.approx(np.nanmean(table[:, 0]), abs=1e-9)
    assert metrics.ap_rare == pytest.approx(np.nanmean(table[0::3]), abs=1e-9)
    assert metrics.ap_common == pytest.approx(np.nanmean(table[1::3]), abs=1e-9)
    assert metrics.ap_frequent == pytest.approx(np.nanmean(table[2::3]), abs=1e-9)


def test_the_rules_of_the_federation_matter() -> None:
    """The same detections score higher where the truth says that it does not know."""
    truth = lvis_truth(1)
    detections = random_detections(1, truth, strays=200, ties=False)
    ids = [category["id"] for category in truth["categories"]]
    strict = {**truth, "images": [dict(image) for image in truth["images"]]}
    for image in strict["images"]:
        image.update(neg_category_ids=ids, not_exhaustive_category_ids=[])
    assert measure_lvis(truth, detections).metrics.ap > measure_lvis(strict, detections).metrics.ap


def test_only_the_best_300_of_an_image_count() -> None:
    truth = lvis_truth(2)
    rng = np.random.default_rng(0)
    image, category = truth["annotations"][0]["image_id"], truth["annotations"][0]["category_id"]
    other = next(c["id"] for c in truth["categories"] if c["id"] != category)
    noise = [
        {"image_id": image, "category_id": other, "bbox": [0, 0, 1, 1], "score": float(s)}
        for s in rng.uniform(0.5, 1, 300)
    ]
    hit = [{k: truth["annotations"][0][k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.1}]
    detections = noise + hit
    kept = best_of_each_image(detections, 300)
    assert hit[0] not in kept
    position = [c["id"] for c in truth["categories"]].index(category)
    found = measure_lvis(truth, detections).metrics.classes[position].ap
    assert found == pytest.approx(np.mean([literal_ap(truth, kept, category, iou) for iou in IOUS]), abs=1e-9)
    assert measure_lvis(truth, hit).metrics.classes[position].ap > found == 0


def test_no_detections_and_no_truth() -> None:
    truth = lvis_truth(3)
    assert measure_lvis(truth, []).metrics.ap == 0
    assert math.isnan(measure_lvis({**truth, "annotations": []}, []).metrics.ap)


def test_a_category_without_frequency_is_refused() -> None:
    truth = lvis_truth(3)
    del truth["categories"][1]["frequency"]
    with pytest.raises(ValueError, match="category 5 has frequency None"):
        measure_lvis(truth, [])
