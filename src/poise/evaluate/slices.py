"""AP of parts of a data set: objects by size and overlap, images by number of objects and by shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import hotcoco
import numpy as np
from hotcoco.primitives import bbox_iou

from poise.evaluate.coco import mean_precision, to_hotcoco
from poise.evaluate.lvis import is_lvis, lvis_evaluator
from poise.evaluate.metrics import NAN
from poise.evaluate.truth import Array, TruthColumns, detection_columns, truth_columns
from poise.storage.coco import CocoAnnotation, CocoDetection, CocoTruth

INFINITE = 1e5**2  # pixels: COCO's limit of all areas
SIZES = {
    "below 16²": (0.0, 16.0**2),
    "16² to 32²": (16.0**2, 32.0**2),
    "32² to 96²": (32.0**2, 96.0**2),
    "96² and more": (96.0**2, INFINITE),
}
OVERLAPS = {"below 0.1": (-1.0, 0.1), "0.1 to 0.3": (0.1, 0.3), "0.3 and more": (0.3, 2.0)}
COUNTS = {"none": (0, 0), "1 to 4": (1, 4), "5 to 14": (5, 14), "15 to 49": (15, 49), "50 and more": (50, 10**9)}
SQUARE = 1.2  # width / height up to which an image is neither wide nor tall


@dataclass(frozen=True)
class Slice:
    """AP of one part of the data in [0,1]; NaN where it has no objects."""

    group: str
    name: str
    ap: float  # IoU 0.50:0.95
    ap50: float
    objects: int
    images: int  # that contain such an object; of slices of images: all of them


def slices_of(truth: CocoTruth, detections: Sequence[CocoDetection], evaluator: hotcoco.COCOeval) -> tuple[Slice, ...]:
    """AP by area of the objects, by their highest IoU with another object, and by number of objects and shape of the
    images. Objects outside of a slice are ignored, as COCO ignores those outside of an area range.

    Args:
        evaluator: the evaluator of both, which has been run.
    """
    columns = truth_columns(truth)
    return (
        *_sizes(truth, detections, columns),
        *_overlaps(truth, detections, columns),
        *_images("objects per image", columns, _by_count(columns), evaluator),
        *_images("shape of the image", columns, _by_shape(columns), evaluator),
    )


def highest_overlaps(columns: TruthColumns) -> Array:
    """Highest IoU of each object with another object of its image, of any class, (n,); crowd and ignored ones: 0."""
    highest = np.zeros(len(columns.image))
    valid = ~(columns.crowd | columns.ignore)
    order = np.flatnonzero(valid)[np.argsort(columns.image[valid], kind="stable")]
    borders = np.flatnonzero(np.diff(columns.image[order])) + 1
    for rows in np.split(order, borders):
        if len(rows) > 1:
            iou = np.array(bbox_iou(columns.boxes[rows], columns.boxes[rows], [False] * len(rows)))
            np.fill_diagonal(iou, 0)
            highest[rows] = iou.max(1)
    return highest


def _sizes(truth: CocoTruth, detections: Sequence[CocoDetection], columns: TruthColumns) -> tuple[Slice, ...]:
    """One evaluation with the area ranges of ``SIZES``."""
    evaluator = _evaluator(truth, columns, detections)
    evaluator.params.area_rng_lbl = list(SIZES)
    evaluator.params.area_rng = [list(limits) for limits in SIZES.values()]
    evaluator.evaluate()
    evaluator.accumulate()
    areas = columns.areas
    masks = [(areas >= low) & (areas < high) for low, high in SIZES.values()]
    numbers = [mean_precision(evaluator, area=position) for position in range(len(SIZES))]
    return tuple(
        _slice("area of the object", name, columns, mask, *ap)
        for name, mask, ap in zip(SIZES, masks, numbers, strict=True)
    )


def _overlaps(truth: CocoTruth, detections: Sequence[CocoDetection], columns: TruthColumns) -> tuple[Slice, ...]:
    """One evaluation for each range; objects outside of it are ignored."""
    highest = highest_overlaps(columns)
    slices = []
    for name, (low, high) in OVERLAPS.items():
        mask = (highest >= low) & (highest < high)
        records: list[CocoAnnotation] = [
            record if inside or record.get("iscrowd") else {**record, "ignore": 1}
            for record, inside in zip(truth.get("annotations", ()), mask.tolist(), strict=True)
        ]
        part = truth_columns({**truth, "annotations": records})
        evaluator = _evaluator(truth, part, detections)
        evaluator.evaluate()
        evaluator.accumulate()
        slices.append(_slice("overlap of the object", name, columns, mask, *mean_precision(evaluator)))
    return tuple(slices)


def _evaluator(truth: CocoTruth, columns: TruthColumns, detections: Sequence[CocoDetection]) -> hotcoco.COCOeval:
    detected = detection_columns(detections, columns)
    if is_lvis(truth):
        return lvis_evaluator(truth, columns, detected)
    return hotcoco.COCOeval(*to_hotcoco(columns, detected), "bbox")


def _slice(group: str, name: str, columns: TruthColumns, mask: Array, ap: float, ap50: float) -> Slice:
    mask = mask & ~(columns.crowd | columns.ignore)
    objects, images = int(mask.sum()), len(np.unique(columns.image[mask]))
    return Slice(group, name, *((ap, ap50) if objects else (NAN, NAN)), objects, images)


def _images(
    group: str, columns: TruthColumns, parts: Mapping[str, Array], evaluator: hotcoco.COCOeval
) -> tuple[Slice, ...]:
    """AP of sets of images (I,) bool; parts without images are left out."""
    parts = {name: mask for name, mask in parts.items() if mask.any()}
    measured = evaluator.slice_by({name: (np.flatnonzero(mask) + 1).tolist() for name, mask in parts.items()})
    valid = ~(columns.crowd | columns.ignore)
    slices = []
    for name, mask in parts.items():
        objects = int((valid & mask[columns.image]).sum())
        ap, ap50 = (float(measured[name][key]) if objects else NAN for key in ("AP", "AP50"))
        slices.append(Slice(group, name, ap, ap50, objects, int(mask.sum())))
    return tuple(slices)


def _by_count(columns: TruthColumns) -> dict[str, Array]:
    valid = ~(columns.crowd | columns.ignore)
    counts = np.bincount(columns.image[valid], minlength=len(columns.image_ids))
    return {name: (counts >= low) & (counts <= high) for name, (low, high) in COUNTS.items()}


def _by_shape(columns: TruthColumns) -> dict[str, Array]:
    width, height = columns.sizes.T
    wide, tall = width > SQUARE * height, height > SQUARE * width
    return {"wide": wide, "about square": ~(wide | tall), "tall": tall}
