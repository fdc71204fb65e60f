"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco.primitives import bbox_iou

from poise.evaluate.truth import Array, DetectionColumns, TruthColumns, detection_columns, truth_columns


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of (truth, predicted); the last row is background taken for a class, the last column missed objects."""

    names: tuple[str, ...]  # K classes
    matrix: Array  # (K+1,K+1) int64
    iou: float
    score: float


def confusion_matrix(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou: float = 0.5, score: float = 0.3
) -> Confusion:
    """Match detections one to one with objects of any class.

    Pairs of one class come first, then the others, each by falling IoU: so the diagonal holds what could be right.
    Unmatched detections of which at least ``iou`` lies in a crowd or ignored region are left out.

    Args:
        iou: least overlap of a match, in (0,1].
        score: detections below are left out.
    """
    columns = truth_columns(truth)
    found = detection_columns(detections, columns)
    size = len(columns.names)
    matrix = np.zeros((size + 1, size + 1), np.int64)
    confident = np.flatnonzero(found.scores >= score)
    for objects, chosen in _by_image(columns, found, confident):
        _count_image(matrix, columns, found, objects, chosen, iou)
    return Confusion(columns.names, matrix, iou, score)


def _by_image(truth: TruthColumns, found: DetectionColumns, confident: Array) -> list[tuple[Array, Array]]:
    """Positions of the objects and of the confident detections of each image."""
    images = np.arange(len(truth.image_ids) + 1)
    objects = np.argsort(truth.image, kind="stable")
    chosen = confident[np.argsort(found.image[confident], kind="stable")]
    ends = np.searchsorted(truth.image[objects], images), np.searchsorted(found.image[chosen], images)
    return [(objects[ends[0][i] : ends[0][i + 1]], chosen[ends[1][i] : ends[1][i + 1]]) for i in images[:-1]]


def _count_image(
    matrix: Array, truth: TruthColumns, found: DetectionColumns, objects: Array, chosen: Array, iou: float
) -> None:
    background = len(matrix) - 1
    skipped = (truth.crowd | truth.ignore)[objects]
    wanted, regions = objects[~skipped], objects[skipped]
    pairs = match_pairs(found.boxes[chosen], truth.boxes[wanted], found.category[chosen], truth.category[wanted], iou)
    for detection, target in pairs:
        matrix[truth.category[wanted[target]], found.category[chosen[detection]]] += 1
    missed = np.delete(wanted, [target for _, target in pairs])
    stray = np.delete(chosen, [detection for detection, _ in pairs])
    if len(stray) and len(regions):
        covered = np.asarray(bbox_iou(found.boxes[stray], truth.boxes[regions], [True] * len(regions)))
        stray = stray[covered.max(1) < iou]
    np.add.at(matrix, (truth.category[missed], background), 1)
    np.add.at(matrix, (background, found.category[stray]), 1)


def match_pairs(boxes: Array, targets: Array, labels: Array, classes: Array, iou: float) -> list[tuple[int, int]]:
    """One-to-one pairs (detection, object) of (n,4) and (m,4) boxes x, y, w, h: equal classes first, by IoU."""
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
