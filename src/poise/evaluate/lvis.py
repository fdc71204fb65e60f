"""LVIS's average precision (Gupta et al. 2019): federated ground truth, at most 300 detections an image.

Of a class only those images count that hold it or are known not to (``neg_category_ids``); where a class is marked in
an image but not exhaustively (``not_exhaustive_category_ids``), detections without an object there are left out. APr,
APc and APf are means over the classes rare, common and frequent in the training set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco

from poise.evaluate.coco import Curves, class_metrics, counts, datasets, read_curves, run_evaluator
from poise.evaluate.metrics import LvisMetrics
from poise.evaluate.truth import TruthColumns, detection_columns, truth_columns

MOST_DETECTIONS = 300  # an image, all classes together
THIRTEEN = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ap_rare", "ap_common", "ap_frequent",
    "ar300", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LvisMeasured:
    """Metrics and what they were averaged from."""

    metrics: LvisMetrics
    curves: Curves


def is_lvis(truth: Mapping[str, Any]) -> bool:
    """Whether the truth is federated: its images say which classes were looked for."""
    return any("neg_category_ids" in record for record in truth["images"])


def measure_lvis(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> LvisMeasured:
    """The thirteen numbers of LVIS v1, per-class AP and curves.

    Args:
        truth: LVIS dictionary: images with ``neg_category_ids`` and ``not_exhaustive_category_ids``, categories with
            ``frequency`` r, c or f.
        detections: COCO results; beyond the 300 best of an image they are left out, as the reference does.

    Raises:
        ValueError: records that do not fit each other, or a category without frequency.
    """
    columns = truth_columns(truth)
    found = detection_columns(detections, columns)
    frequencies = _frequencies(truth, columns)
    gold, results = datasets(
        columns, found, _federation(truth, columns), [{"frequency": frequency} for frequency in frequencies]
    )
    results = results.cap_detections_per_image(MOST_DETECTIONS)
    evaluator = hotcoco.COCOeval(gold, results, "bbox", lvis_style=True)
    numbers = run_evaluator(evaluator, THIRTEEN)
    curves = read_curves(evaluator, columns)
    classes = class_metrics(columns, found, curves, frequencies)
    return LvisMeasured(LvisMetrics(**numbers, classes=classes, counts=counts(columns, found)), curves)


def _frequencies(truth: Mapping[str, Any], columns: TruthColumns) -> list[str]:
    given = {record["id"]: record.get("frequency") for record in truth["categories"]}
    for category, frequency in given.items():
        if frequency not in ("r", "c", "f"):
            raise ValueError(f"category {category} has frequency {frequency!r}; LVIS needs 'r', 'c' or 'f'")
    return [given[category] for category in columns.category_ids]


def _federation(truth: Mapping[str, Any], columns: TruthColumns) -> list[dict[str, list[int]]]:
    """What each image says of classes, in the evaluator's own category numbers."""
    number = {category: i + 1 for i, category in enumerate(columns.category_ids)}
    records = {record["id"]: record for record in truth["images"]}
    keys = ("neg_category_ids", "not_exhaustive_category_ids")
    return [
        {key: [number[category] for category in records[image].get(key, ()) if category in number] for key in keys}
        for image in columns.image_ids
    ]
