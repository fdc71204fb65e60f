"""COCO average precision and recall, computed by hotcoco, equal to pycocotools.

There are two differences from pycocotools: annotations are renumbered, so an object with id 0 can be matched
(pycocotools never matches it), and ``"ignore": 1`` is kept (pycocotools overwrites it): such an object need not be
detected, and one detection of it is neither a true nor a false positive. All metrics are in [0,1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hotcoco
import numpy as np

from poise.evaluate.limits import COCO_LIMIT, warn_of_crowded_classes
from poise.evaluate.metrics import NAN, ClassMetrics, Counts, Metrics, MetricsBeyondCoco
from poise.evaluate.truth import (
    IGNORED_AREA,
    Array,
    DetectionColumns,
    TruthColumns,
    detection_columns,
    truth_columns,
)
from poise.storage.coco import CocoCategory, CocoDetection, CocoImage, CocoTruth

COCO_METRICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curves:
    """Interpolated precision of every class at 101 recalls (all sizes, maximum number of detections)."""

    names: tuple[str, ...]  # K classes
    ious: Array  # (T,) IoU thresholds
    recall: Array  # (101,)
    precision: Array  # (T,101,K) in [0,1]; NaN for a class without truth
    scores: Array  # (T,101,K) score threshold at that recall
    max_detections: int = COCO_LIMIT  # detections per image and class that count


@dataclass(frozen=True, eq=False)
class CocoResult:
    """Metrics and the precision-recall curves that they average."""

    metrics: Metrics
    curves: Curves


def measure_coco(truth: CocoTruth, detections: Sequence[CocoDetection], max_detections: int = COCO_LIMIT) -> CocoResult:
    """COCO's twelve metrics, per-class AP, and curves.

    The twelve metrics always count 100 detections per image and class, as pycocotools does.

    Args:
        truth: COCO dictionary; ``area`` defaults to the box's, ``iscrowd`` and ``ignore`` to 0.
        detections: COCO results, in any order.
        max_detections: if more than 100: also compute AP, AP50, AP75 and AR with so many detections per image and
            class (``Metrics.beyond``); AP of the classes and curves then count so many, too.

    Raises:
        ValueError: inconsistent records, or numbers that are not finite.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    evaluator = hotcoco.COCOeval(*to_hotcoco(columns, detected), "bbox")
    numbers = run_evaluator(evaluator, COCO_METRICS)
    beyond = None
    if max_detections > COCO_LIMIT:
        evaluator = hotcoco.COCOeval(*to_hotcoco(columns, detected), "bbox")
        evaluator.params.max_dets = [1, 10, max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
        beyond = _beyond(evaluator, max_detections)
    warn_of_crowded_classes(columns, max(max_detections, COCO_LIMIT))
    curves = read_curves(evaluator, columns)
    classes = class_metrics(columns, detected, curves)
    found = counts(columns, detected)
    return CocoResult(Metrics(**numbers, classes=classes, counts=found, beyond=beyond, extra={}), curves)


def _beyond(evaluator: hotcoco.COCOeval, max_detections: int) -> MetricsBeyondCoco:
    """Means over all sizes; precision is (T,R,K,area,limit), recall (T,K,area,limit), -1 where undefined."""
    result: dict[str, Array] = evaluator.eval or {}  # the stub allows None before accumulate()
    ious = np.asarray(evaluator.params.iou_thrs)
    precision, recall = result["precision"][:, :, :, 0, -1], result["recall"][:, :, 0, -1]
    at = [int(np.abs(ious - iou).argmin()) for iou in (0.5, 0.75)]
    ap, ap50, ap75 = _mean(precision), *(_mean(precision[t]) for t in at)
    return MetricsBeyondCoco(max_detections, ap, ap50, ap75, _mean(recall))


def _mean(values: Array) -> float:
    known = values[values >= 0]
    return float(known.mean()) if known.size else NAN


def to_hotcoco(
    truth: TruthColumns,
    detected: DetectionColumns,
    images: Sequence[CocoImage] = (),
    categories: Sequence[CocoCategory] = (),
) -> tuple[hotcoco.COCO, hotcoco.COCO]:
    """Truth and detections as hotcoco data sets; ``images`` and ``categories`` add fields to the records (LVIS)."""
    image_records = [
        {**(images[i] if images else {}), "id": i + 1, "width": int(width), "height": int(height), "file_name": str(i)}
        for i, (width, height) in enumerate(truth.sizes)
    ]
    category_records = [
        {**(categories[i] if categories else {}), "id": i + 1, "name": name} for i, name in enumerate(truth.names)
    ]
    gold = hotcoco.COCO.from_arrays(
        image_records,
        category_records,
        truth.image + 1,
        truth.category + 1,
        truth.boxes,
        ids=np.arange(1, len(truth.image) + 1),
        area=np.where(truth.ignore, IGNORED_AREA, truth.areas),
        iscrowd=truth.crowd,
    )
    rows = np.column_stack((detected.image + 1, detected.boxes, detected.scores, detected.category + 1)).astype(
        np.float64
    )
    return gold, gold.load_res(rows)


def run_evaluator(evaluator: hotcoco.COCOeval, names: Sequence[str]) -> dict[str, float]:
    """Evaluate. Returns the summary by ``names``, with NaN where pycocotools writes -1."""
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summary_lines()  # computes the numbers and, unlike summarize(), prints nothing
    return {name: NAN if value < 0 else float(value) for name, value in zip(names, evaluator.stats, strict=True)}


def read_curves(evaluator: hotcoco.COCOeval, truth: TruthColumns) -> Curves:
    """Precision for all sizes and the maximum number of detections, NaN where pycocotools writes -1."""
    result: dict[str, Array] = evaluator.eval or {}  # the stub allows None before accumulate()
    precision = result["precision"][:, :, :, 0, -1]
    return Curves(
        names=truth.names,
        ious=np.asarray(evaluator.params.iou_thrs),
        recall=np.asarray(evaluator.params.rec_thrs),
        precision=np.where(precision < 0, np.nan, precision),
        scores=result["scores"][:, :, :, 0, -1],
        max_detections=int(evaluator.params.max_dets[-1]),
    )


def mean_precision(evaluator: hotcoco.COCOeval, area: int = 0) -> tuple[float, float]:
    """AP over IoU 0.50:0.95 and AP50 of one area range; NaN without objects."""
    result: dict[str, Array] = evaluator.eval or {}  # the stub allows None before accumulate()
    precision = result["precision"][:, :, :, area, -1]
    return _mean(precision), _mean(precision[0])


def class_metrics(
    truth: TruthColumns,
    detected: DetectionColumns,
    curves: Curves,
    frequencies: Sequence[str | None] | None = None,
) -> tuple[ClassMetrics, ...]:
    """Metrics of every class in the order of the truth; AP is the mean of its curves."""
    valid = ~(truth.crowd | truth.ignore)
    size = len(truth.names)
    objects = np.bincount(truth.category[valid], minlength=size)
    pairs = np.unique(np.stack((truth.category[valid], truth.image[valid])), axis=1)
    images = np.bincount(pairs[0], minlength=size)
    detections = np.bincount(detected.category, minlength=size)
    return tuple(
        ClassMetrics(
            name=name,
            category_id=truth.category_ids[k],
            ap=float(curves.precision[:, :, k].mean()),
            ap50=float(curves.precision[0, :, k].mean()),
            objects=int(objects[k]),
            images=int(images[k]),
            detections=int(detections[k]),
            frequency=frequencies[k] if frequencies else None,
        )
        for k, name in enumerate(truth.names)
    )


def counts(truth: TruthColumns, detected: DetectionColumns) -> Counts:
    """Numbers of images, objects, ignored regions and detections."""
    ignored = int((truth.crowd | truth.ignore).sum())
    return Counts(len(truth.image_ids), len(truth.image) - ignored, ignored, len(detected.image))
