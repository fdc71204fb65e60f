"""Detections as COCO results, the JSON format that COCO tools read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from poise.storage import write_text_atomically
from poise.storage.coco import CocoDetection, CocoTruth

COORDINATE_DIGITS = 3  # a thousandth of a pixel


def coco_results(
    image_id: int | str, boxes: Tensor, scores: Tensor, labels: Tensor, *, category_ids: Sequence[int | None]
) -> list[CocoDetection]:
    """COCO results of one image.

    Args:
        boxes: (n,4) xyxy in pixels of the original image; written as x, y, width, height to a thousandth of a pixel.
        scores: (n,) in [0,1], written in full precision, so that rounding creates no ties.
        labels: (n,) class indices, written as ``category_ids[label]``; detections where that is ``None`` are left out.
    """
    corners = boxes.detach().cpu().double().numpy()
    sides = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1).round(COORDINATE_DIGITS)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(sides.tolist(), scores.tolist(), labels.tolist(), strict=True)
        if category_ids[label] is not None
    ]


def write_results(
    detections: Sequence[CocoDetection], path: str | os.PathLike[str], truth: CocoTruth | None = None
) -> Path:
    """Write COCO results as JSON, atomically.

    Args:
        truth: of joined data sets: each result then also has ``source`` and ``source_id``, the name of its data set and
            the image's id there, and ``category``, the name of its class.
    """
    sources = {one["id"]: one for one in truth["images"] if "source" in one} if truth is not None else {}
    if truth is not None and sources:
        names = {one["id"]: one["name"] for one in truth["categories"]}
        detections = [
            {
                **one,
                "category": names[one["category_id"]],
                "source": sources[one["image_id"]]["source"],
                "source_id": sources[one["image_id"]]["source_id"],
            }
            for one in detections
        ]
    write_text_atomically(path, json.dumps(list(detections), separators=(",", ":"), allow_nan=False))
    return Path(path)


def read_results(path: str | os.PathLike[str]) -> list[CocoDetection]:
    """Read COCO results.

    Raises:
        ValueError: not JSON, or not a list of results.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(results, list) or any(not isinstance(one, dict) or not needed <= one.keys() for one in results):
        raise ValueError(f"{path} does not hold COCO results: a list of objects with {', '.join(sorted(needed))}")
    return results
