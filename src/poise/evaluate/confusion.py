"""Confusion matrix of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco.primitives import bbox_iou

from poise.evaluate.truth import Array, DetectionColumns, TruthColumns, detection_columns, truth_columns
from poise.storage.coco import CocoDetection, CocoTruth


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of (true, predicted) classes; last row: false positives on background, last column: missed objects."""

    names: tuple[str, ...]  # K classes
    matrix: Array  # (K+1,K+1) int64
    iou: float
    score: float


def confusion_matrix(
    truth: CocoTruth, detections: Sequence[CocoDetection], iou: float = 0.5, score: float = 0.3
) -> Confusion:
    """Match detections one to one with objects of any class and count the pairs of classes.

    Pairs of the same class are matched first, then the others, each in descending order of IoU. Unmatched detections of
    which at least ``iou`` of the area lies in a crowd or ignored region are left out.

    Args:
        iou: IoU threshold of a match, in (0,1].
        score: score threshold; detections below it are left out.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    size = len(columns.names)
    matrix = np.zeros((size + 1, size + 1), np.int64)
    confident = np.flatnonzero(detected.scores >= score)
    for objects, selected in group_by_image(columns, detected, confident):
        _count_image(matrix, columns, detected, objects, selected, iou)
    return Confusion(columns.names, matrix, iou, score)


def group_by_image(truth: TruthColumns, detected: DetectionColumns, confident: Array) -> list[tuple[Array, Array]]:
    """Positions of the objects and of the confident detections of each image."""
    images = np.arange(len(truth.image_ids) + 1)
    objects = np.argsort(truth.image, kind="stable")
    selected = confident[np.argsort(detected.image[confident], kind="stable")]
    ends = np.searchsorted(truth.image[objects], images), np.searchsorted(detected.image[selected], images)
    return [(objects[ends[0][i] : ends[0][i + 1]], selected[ends[1][i] : ends[1][i + 1]]) for i in images[:-1]]


def _count_image(
    matrix: Array, truth: TruthColumns, detected: DetectionColumns, objects: Array, selected: Array, iou: float
) -> None:
    background = len(matrix) - 1
    skipped = (truth.crowd | truth.ignore)[objects]
    valid, regions = objects[~skipped], objects[skipped]
    pairs = match_pairs(
        detected.boxes[selected], truth.boxes[valid], detected.category[selected], truth.category[valid], iou=iou
    )
    for detection, target in pairs:
        matrix[truth.category[valid[target]], detected.category[selected[detection]]] += 1
    missed = np.delete(valid, [target for _, target in pairs])
    unmatched = np.delete(selected, [detection for detection, _ in pairs])
    if len(unmatched) and len(regions):
        covered = np.asarray(bbox_iou(detected.boxes[unmatched], truth.boxes[regions], [True] * len(regions)))
        unmatched = unmatched[covered.max(1) < iou]
    np.add.at(matrix, (truth.category[missed], background), 1)
    np.add.at(matrix, (background, detected.category[unmatched]), 1)


def match_pairs(boxes: Array, targets: Array, labels: Array, classes: Array, *, iou: float) -> list[tuple[int, int]]:
    """Match (n,4) with (m,4) boxes x, y, w, h one to one: pairs of one class first, then by descending IoU."""
    if not len(boxes) or not len(targets):
        return []
    overlap = np.asarray(bbox_iou(boxes, targets, [False] * len(targets)))
    first, second = np.nonzero(overlap >= iou)
    order = np.lexsort((-overlap[first, second], labels[first] != classes[second]))
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for detection, target in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if detection not in used[0] and target not in used[1]:
            pairs.append((detection, target))
            used[0].add(detection)
            used[1].add(target)
    return pairs
