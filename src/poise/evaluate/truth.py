"""Ground truth and detections as columns for the evaluator.

Truth is a COCO dictionary (``images``, ``annotations``, ``categories``) with the data set's original ids; detections
are COCO results (``image_id``, ``category_id``, ``bbox`` x, y, width, height, ``score``). The
evaluator uses ids of its own: pycocotools takes annotation id 0 for "unmatched", and image ids may be strings here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from poise.storage.coco import CocoDetection, CocoTruth

Id = TypeVar("Id", bound=int | str)
Array = np.ndarray
# Area of objects with ``ignore`` that are no crowds (VOC's difficult). It is outside of every area range of COCO and
# LVIS, so the evaluator does not count the object and ignores one detection of it.
IGNORED_AREA = 1e11


@dataclass(frozen=True, eq=False)
class TruthColumns:
    """Ground truth in columns; ``image`` and ``category`` are positions in ``image_ids`` and ``category_ids``."""

    image_ids: tuple[int | str, ...]
    sizes: Array  # (I,2) width and height
    category_ids: tuple[int, ...]
    names: tuple[str, ...]
    image: Array  # (n,) int64
    category: Array  # (n,) int64
    boxes: Array  # (n,4) float64 x, y, width, height
    areas: Array  # (n,) float64
    crowd: Array  # (n,) bool
    ignore: Array  # (n,) bool: ignored objects that are no crowds


@dataclass(frozen=True, eq=False)
class DetectionColumns:
    """Detections in columns, with the positions of their truth."""

    image: Array  # (n,) int64
    category: Array  # (n,) int64
    boxes: Array  # (n,4) float64 x, y, width, height
    scores: Array  # (n,) float64


def truth_columns(truth: CocoTruth) -> TruthColumns:
    """Columns of a COCO dictionary.

    Images are in the order of their ids (strings: of the file), the order in which pycocotools ranks ties.

    Raises:
        ValueError: duplicate or unknown ids, or a box that is not finite.
    """
    images, categories = truth["images"], truth["categories"]
    if all(isinstance(record["id"], int) for record in images):
        images = sorted(images, key=lambda record: record["id"])
    categories = sorted(categories, key=lambda record: record["id"])
    positions = _positions([record["id"] for record in images], "image")
    category_positions = _positions([record["id"] for record in categories], "category")
    records = truth.get("annotations", [])
    image, category = _lookup(records, "image_id", positions), _lookup(records, "category_id", category_positions)
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    _check_finite(boxes, "annotation")
    areas = [record.get("area", box[2] * box[3]) for record, box in zip(records, boxes, strict=True)]
    return TruthColumns(
        image_ids=tuple(positions),
        sizes=np.array([(r.get("width", 0), r.get("height", 0)) for r in images], np.float64).reshape(-1, 2),
        category_ids=tuple(category_positions),
        names=tuple(str(record.get("name", record["id"])) for record in categories),
        image=image,
        category=category,
        boxes=boxes,
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], bool),
        ignore=np.array([bool(r.get("ignore", 0)) and not r.get("iscrowd", 0) for r in records], bool),
    )


def detection_columns(detections: Sequence[CocoDetection], truth: TruthColumns) -> DetectionColumns:
    """Columns of COCO results.

    Raises:
        ValueError: a detection of an image or category that is not in the truth, or one that is not finite.
    """
    image = _lookup(detections, "image_id", {value: i for i, value in enumerate(truth.image_ids)}, "detection")
    category = _lookup(detections, "category_id", {value: i for i, value in enumerate(truth.category_ids)}, "detection")
    boxes = np.array([record["bbox"] for record in detections], np.float64).reshape(-1, 4)
    scores = np.array([record["score"] for record in detections], np.float64)
    _check_finite(np.concatenate((boxes, scores[:, None]), 1), "detection")
    return DetectionColumns(image, category, boxes, scores)


def _positions(ids: Sequence[Id], what: str) -> dict[Id, int]:
    positions = {value: i for i, value in enumerate(ids)}
    if len(positions) != len(ids):
        twice = next(value for i, value in enumerate(ids) if positions[value] != i)
        raise ValueError(f"{what} id {twice!r} occurs twice in the ground truth (poise check DATA lists such faults)")
    return positions


def _lookup(
    records: Sequence[Mapping[str, object]], key: str, positions: Mapping[Any, int], what: str = "annotation"
) -> Array:
    try:
        return np.array([positions[record[key]] for record in records], np.int64)
    except KeyError:
        i = next(i for i, record in enumerate(records) if record.get(key) not in positions)
        value = records[i].get(key)
        raise ValueError(
            f"{what} {i} has {key} {value!r}, which is not in the ground truth; "
            f"it has {len(positions)}, the first {list(positions)[:8]}. Are both of the same data set and split?"
        ) from None


def _check_finite(values: Array, what: str) -> None:
    wrong = ~np.isfinite(values).all(1)
    if wrong.any():
        raise ValueError(f"{what} {int(wrong.argmax())} is not finite: {values[wrong.argmax()].tolist()}")
