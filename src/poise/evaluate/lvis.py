"""LVIS average precision (Gupta et al. 2019): federated ground truth, at most 300 detections an image.

A class is evaluated on the images that contain it or are known not to contain it (``neg_category_ids``). Where a class
is not exhaustively annotated in an image (``not_exhaustive_category_ids``), unmatched detections of it are left out.
APr, APc and APf are means over the classes that are rare, common and frequent in the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hotcoco

from poise.evaluate.coco import Curves, class_metrics, counts, read_curves, run_evaluator, to_hotcoco
from poise.evaluate.metrics import LvisMetrics
from poise.evaluate.truth import DetectionColumns, TruthColumns, detection_columns, truth_columns
from poise.storage.coco import CocoCategory, CocoDetection, CocoImage, CocoTruth

MAX_DETECTIONS = 300  # an image, all classes together
LVIS_METRICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ap_rare", "ap_common", "ap_frequent",
    "ar300", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LvisResult:
    """Metrics and the precision-recall curves that they average."""

    metrics: LvisMetrics
    curves: Curves


def is_lvis(truth: CocoTruth) -> bool:
    """Whether the truth is federated: its images list the classes that were verified to be absent."""
    return any("neg_category_ids" in record for record in truth["images"])


def measure_lvis(truth: CocoTruth, detections: Sequence[CocoDetection]) -> LvisResult:
    """LVIS v1's thirteen metrics, per-class AP, and curves.

    Args:
        truth: LVIS dictionary: images with ``neg_category_ids`` and ``not_exhaustive_category_ids``, categories with
            ``frequency`` r, c or f.
        detections: COCO results; those after the 300 highest scores of an image are left out, as lvis-api does.

    Raises:
        ValueError: inconsistent records, or a category without frequency.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    evaluator = lvis_evaluator(truth, columns, detected)
    numbers = run_evaluator(evaluator, LVIS_METRICS)
    curves = read_curves(evaluator, columns)
    classes = class_metrics(columns, detected, curves, _frequencies(truth, columns))
    return LvisResult(LvisMetrics(**numbers, classes=classes, counts=counts(columns, detected), extra={}), curves)


def lvis_evaluator(truth: CocoTruth, columns: TruthColumns, detected: DetectionColumns) -> hotcoco.COCOeval:
    """hotcoco's evaluator by LVIS's rules, not yet run."""
    frequencies: list[CocoCategory] = [{"frequency": frequency} for frequency in _frequencies(truth, columns)]
    gold, results = to_hotcoco(columns, detected, _federation(truth, columns), frequencies)
    return hotcoco.COCOeval(gold, results.cap_detections_per_image(MAX_DETECTIONS), "bbox", lvis_style=True)


def _frequencies(truth: CocoTruth, columns: TruthColumns) -> list[str]:
    given = {record["id"]: record.get("frequency", "") for record in truth["categories"]}
    for category, frequency in given.items():
        if frequency not in ("r", "c", "f"):
            raise ValueError(f"category {category} has frequency {frequency or None!r}; LVIS needs 'r', 'c' or 'f'")
    return [given[category] for category in columns.category_ids]


def _federation(truth: CocoTruth, columns: TruthColumns) -> list[CocoImage]:
    """Federated annotations of each image, with the category numbers of the evaluator."""
    number = {category: i + 1 for i, category in enumerate(columns.category_ids)}
    records = {record["id"]: record for record in truth["images"]}

    def numbers(categories: Sequence[int]) -> list[int]:
        return [number[category] for category in categories if category in number]

    return [
        {
            "neg_category_ids": numbers(record.get("neg_category_ids", ())),
            "not_exhaustive_category_ids": numbers(record.get("not_exhaustive_category_ids", ())),
        }
        for record in (records[image] for image in columns.image_ids)
    ]
