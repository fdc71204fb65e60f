"""Limits on the number of detections: that of COCO's metrics, 100 per image and class, and that of a model, per image.

Where an image has more objects than a limit, no detector reaches an AP of 1. A warning then names the image.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from poise.evaluate.truth import TruthColumns
from poise.storage.coco import CocoTruth

if TYPE_CHECKING:
    from poise.evaluate.coco import CocoResult

COCO_LIMIT = 100


class DetectionLimitWarning(UserWarning):
    """An image has more objects than detections of it can count."""


def measure_with(truth: CocoTruth, max_detections: int | None) -> partial[CocoResult] | None:
    """Return ``measure_coco`` with another limit; None for the usual one.

    Raises:
        ValueError: LVIS data, whose metrics count 300 detections per image.
    """
    from poise.evaluate.coco import measure_coco
    from poise.evaluate.lvis import is_lvis

    if max_detections is None or max_detections <= COCO_LIMIT:
        return None
    if is_lvis(truth):
        if max_detections <= 300:
            return None
        raise ValueError("LVIS metrics count 300 detections per image; max_detections cannot be greater")
    return partial(measure_coco, max_detections=max_detections)


def warn_of_crowded_classes(truth: TruthColumns, max_detections: int) -> None:
    """Warn where an image has more objects of a class than the metrics count detections of them."""
    wanted = ~(truth.crowd | truth.ignore)
    pairs, counts = np.unique(np.stack((truth.image[wanted], truth.category[wanted])), axis=1, return_counts=True)
    crowded = counts > max_detections
    if crowded.any():
        image, category = pairs[:, counts.argmax()]
        warnings.warn(
            f"{int(crowded.sum())} images have more objects of a class than the {max_detections} detections that "
            f"count (image {truth.image_ids[image]!r}: {counts.max()} of {truth.names[category]!r}), which limits AP "
            "and AR; give a greater max_detections",
            DetectionLimitWarning,
            stacklevel=4,
        )


def warn_of_crowded_images(truth: CocoTruth, max_detections: int | None) -> None:
    """Warn where an image has more objects than the model returns detections."""
    if max_detections is None:
        return
    regions = [record for record in truth["annotations"] if not (record.get("iscrowd") or record.get("ignore"))]
    counts = Counter(record["image_id"] for record in regions)
    crowded = [image for image, count in counts.items() if count > max_detections]
    if crowded:
        fullest = max(crowded, key=lambda image: counts[image])
        warnings.warn(
            f"{len(crowded)} images have more objects than the {max_detections} detections that the model returns "
            f"(image {fullest!r}: {counts[fullest]}); give a greater max_detections",
            DetectionLimitWarning,
            stacklevel=3,
        )
