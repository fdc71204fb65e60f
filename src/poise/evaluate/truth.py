"""Ground truth and detections as the columns that the evaluator works on.

Truth is a COCO dictionary (``images``, ``annotations``, ``categories``) with the data set's original ids; detections
are COCO results (``image_id``, ``category_id``, ``bbox`` x, y, width, height, ``score``). Ids inside the evaluator are
its own: COCO's reference code takes annotation id 0 for "unmatched", and image ids may be text here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# Beyond every area range of COCO and LVIS, so that the evaluator takes the object out of the count and forgives one
# detection of it: how non-crowd ``ignore`` (VOC's difficult, a data set's own flag) is put to it.
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
    ignore: Array  # (n,) bool: not to be found though no crowd


@dataclass(frozen=True, eq=False)
class DetectionColumns:
    """Detections in columns, numbered as their truth is."""

    image: Array  # (n,) int64
    category: Array  # (n,) int64
    boxes: Array  # (n,4) float64 x, y, width, height
    scores: Array  # (n,) float64


def truth_columns(truth: Mapping[str, Any]) -> TruthColumns:
    """Columns of a COCO dictionary.

    Images keep the order of their ids (text: of the file), which is the order in which the reference ranks ties.

    Raises:
        ValueError: ids that occur twice or are unknown, or a box that is not finite.
    """
    images, categories = truth["images"], truth["categories"]
    if all(isinstance(record["id"], int) for record in images):
        images = sorted(images, key=lambda record: record["id"])
    categories = sorted(categories, key=lambda record: record["id"])
    places = _positions([record["id"] for record in images], "image")
    kinds = _positions([record["id"] for record in categories], "category")
    records = truth.get("annotations", [])
    image, category = _lookup(records, "image_id", places), _lookup(records, "category_id", kinds)
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    _check_finite(boxes, "annotation")
    areas = [record.get("area", box[2] * box[3]) for record, box in zip(records, boxes, strict=True)]
    return TruthColumns(
        image_ids=tuple(places),
        sizes=np.array([(r.get("width", 0), r.get("height", 0)) for r in images], np.float64).reshape(-1, 2),
        category_ids=tuple(kinds),
        names=tuple(str(record.get("name", record["id"])) for record in categories),
        image=image,
        category=category,
        boxes=boxes,
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], bool),
        ignore=np.array([bool(r.get("ignore", 0)) and not r.get("iscrowd", 0) for r in records], bool),
    )


def detection_columns(detections: Sequence[Mapping[str, Any]], truth: TruthColumns) -> DetectionColumns:
    """Columns of COCO results.

    Raises:
        ValueError: a detection of an image or category that the truth does not know, or one that is not finite.
    """
    image = _lookup(detections, "image_id", {value: i for i, value in enumerate(truth.image_ids)}, "detection")
    category = _lookup(detections, "category_id", {value: i for i, value in enumerate(truth.category_ids)}, "detection")
    boxes = np.array([record["bbox"] for record in detections], np.float64).reshape(-1, 4)
    scores = np.array([record["score"] for record in detections], np.float64)
    _check_finite(np.concatenate((boxes, scores[:, None]), 1), "detection")
    return DetectionColumns(image, category, boxes, scores)


def corners(boxes: Array) -> Array:
    """(n,4) x1, y1, x2, y2 of (n,4) x, y, width, height."""
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)


def _positions(ids: Sequence[Any], what: str) -> dict[Any, int]:
    positions = {value: i for i, value in enumerate(ids)}
    if len(positions) != len(ids):
        twice = next(value for i, value in enumerate(ids) if positions[value] != i)
        raise ValueError(f"{what} id {twice!r} occurs twice in the ground truth (poise check DATA lists such faults)")
    return positions


def _lookup(
    records: Sequence[Mapping[str, Any]], key: str, positions: Mapping[Any, int], what: str = "annotation"
) -> Array:
    try:
        return np.array([positions[record[key]] for record in records], np.int64)
    except KeyError:
        i = next(i for i, record in enumerate(records) if record.get(key) not in positions)
        found = records[i].get(key)
        raise ValueError(
            f"{what} {i} has {key} {found!r}, which the ground truth does not know; "
            f"it has {len(positions)}, the first {list(positions)[:8]}. Do both belong to the same data set and split?"
        ) from None


def _check_finite(values: Array, what: str) -> None:
    wrong = ~np.isfinite(values).all(1)
    if wrong.any():
        raise ValueError(f"{what} {int(wrong.argmax())} is not finite: {values[wrong.argmax()].tolist()}")
