"""Matching by score, precision and recall over the score threshold, and the images with most errors, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth

from poise.evaluate import confidence_curve, match_by_score, measure_coco, worst_images


def box(image: int, category: int, corners: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": corners, **more}


TRUTH: dict[str, Any] = {
    "images": [{"id": i, "width": 100, "height": 100} for i in (1, 2)],
    "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    "annotations": [
        box(1, 5, [0, 0, 10, 10], id=1),
        box(1, 6, [50, 50, 10, 10], id=2),
        box(1, 5, [0, 50, 40, 40], id=3, iscrowd=1),
        box(2, 5, [0, 0, 10, 10], id=4),
    ],
}
DETECTIONS = [
    box(1, 5, [0, 0, 10, 9], score=0.9),  # the first cat
    box(1, 5, [0, 0, 10, 10], score=0.8),  # the same cat again, though its IoU is higher
    box(1, 5, [5, 55, 10, 10], score=0.7),  # in the crowd
    box(1, 5, [50, 50, 10, 10], score=0.6),  # the dog, as a cat
    box(2, 5, [0, 0, 10, 10], score=0.2),  # the second cat
]


def test_matches_follow_the_score() -> None:
    matches = match_by_score(TRUTH, DETECTIONS)
    assert matches.index.tolist() == [0, -1, -1, -1, 3]
    assert matches.ignored.tolist() == [False, False, True, False, False]
    assert matches.false_positives.tolist() == [False, True, False, True, False]


def test_precision_recall_and_f1_at_every_score() -> None:
    curve = confidence_curve(match_by_score(TRUTH, DETECTIONS))
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.6, 0.2]
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3])
    assert curve.f1.tolist() == pytest.approx([2 / 4, 2 / 5, 2 / 6, 4 / 7])
    assert curve.best() == pytest.approx({"threshold": 0.2, "precision": 0.5, "recall": 2 / 3, "f1": 4 / 7})
    tied = confidence_curve(match_by_score(TRUTH, [{**one, "score": 0.5} for one in DETECTIONS]))
    assert tied.thresholds.tolist() == [0.5] and tied.precision.tolist() == [0.5]
    assert confidence_curve(match_by_score(TRUTH, [])).best() == {}
    assert confidence_curve(match_by_score({**TRUTH, "annotations": []}, DETECTIONS)).best() == {}


def test_images_with_most_errors_come_first() -> None:
    (first, second) = worst_images(match_by_score(TRUTH, DETECTIONS), 5)
    assert (first.image, first.true_positives, first.false_positives, first.missed) == (0, (0,), (1, 3), (1,))
    assert (second.image, second.false_positives, second.missed) == (1, (), (3,)) and first.count == 3
    (only,) = worst_images(match_by_score(TRUTH, DETECTIONS), 5, score=0.1)[1:] or [None]
    assert only is None  # at this threshold the second image has no error


def test_recall_is_that_of_the_evaluator() -> None:
    """At IoU 0.50 without a limit of detections: the recall of all scores, class by class, as precision is defined."""
    truth = random_truth(3)
    for record in truth["annotations"]:
        record.update(iscrowd=0, ignore=0)
    detections = random_detections(3, truth)
    curves = measure_coco(truth, detections).curves
    for k, category in enumerate(sorted(truth["categories"], key=lambda one: one["id"])):
        own = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] == category["id"]]}
        found = [one for one in detections if one["category_id"] == category["id"]]
        if own["annotations"] and max(np.unique([one["image_id"] for one in found], return_counts=True)[1]) <= 100:
            recall = confidence_curve(match_by_score(own, found)).recall[-1]
            reached = curves.recall[curves.precision[0, :, k] > 0].max()
            assert reached <= recall + 1e-9 < reached + 0.0101
