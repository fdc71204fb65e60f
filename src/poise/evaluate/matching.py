"""Match detections with objects in descending order of score, as COCO does, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco.primitives import bbox_iou

from poise.evaluate.confusion import group_by_image
from poise.evaluate.truth import Array, DetectionColumns, TruthColumns, detection_columns, truth_columns
from poise.storage.coco import CocoDetection, CocoTruth


@dataclass(frozen=True, eq=False)
class DetectionMatches:
    """Detections, objects, and which detection found which object at one IoU threshold."""

    truth: TruthColumns
    detected: DetectionColumns
    index: Array  # (n,) int64 index of the matched annotation, -1: none
    ignored: Array  # (n,) bool: unmatched, but in a crowd or ignored region

    @property
    def false_positives(self) -> Array:
        """(n,) bool."""
        false: np.ndarray = (self.index < 0) & ~self.ignored
        return false

    @property
    def valid(self) -> Array:
        """Annotations that are objects to be found, (m,) bool."""
        counted: np.ndarray = ~(self.truth.crowd | self.truth.ignore)
        return counted

    def counts_by_image(self, score: float) -> Array:
        """True positives, false positives and missed objects of each image at a score threshold, (I,3) int64."""
        confident = self.detected.scores >= score
        right = confident & (self.index >= 0)
        missed = self.valid.copy()
        missed[self.index[right]] = False
        images = self.detected.image[right], self.detected.image[confident & self.false_positives]
        columns = (*images, self.truth.image[missed])
        return np.stack([np.bincount(column, minlength=len(self.truth.image_ids)) for column in columns], 1)


def match_by_score(truth: CocoTruth, detections: Sequence[CocoDetection], iou: float = 0.5) -> DetectionMatches:
    """Match each detection, in descending order of score, with the free object of its class of the highest IoU.

    Args:
        truth: COCO dictionary.
        detections: COCO results.
        iou: IoU threshold. Of an unmatched detection at least this fraction of its area must lie in a crowd or ignored
            region for it to be ignored.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    index = np.full(len(detected.scores), -1, np.int64)
    ignored = np.zeros(len(index), bool)
    matches = DetectionMatches(columns, detected, index, ignored)
    for rows, selected in group_by_image(columns, detected, np.arange(len(index))):
        objects, regions = rows[matches.valid[rows]], rows[~matches.valid[rows]]
        ordered = selected[np.argsort(-detected.scores[selected], kind="stable")]
        index[ordered] = _match_image(columns, detected, objects, ordered, iou)
        rest = ordered[index[ordered] < 0]
        if len(rest) and len(regions):
            covered = np.asarray(bbox_iou(detected.boxes[rest], columns.boxes[regions], [True] * len(regions)))
            ignored[rest] = covered.max(1) >= iou
    return matches


def _match_image(truth: TruthColumns, detected: DetectionColumns, objects: Array, ordered: Array, iou: float) -> Array:
    """Index of the annotation that each detection of one image is matched with, -1: none."""
    index = np.full(len(ordered), -1, np.int64)
    if not len(objects) or not len(ordered):
        return index
    overlap = np.asarray(bbox_iou(detected.boxes[ordered], truth.boxes[objects], [False] * len(objects)))
    overlap = np.where(detected.category[ordered][:, None] == truth.category[objects], overlap, -1.0)
    for i in range(len(ordered)):
        best = int(overlap[i].argmax())
        if overlap[i, best] >= iou:
            index[i] = objects[best]
            overlap[:, best] = -1.0  # the object is taken
    return index


@dataclass(frozen=True, eq=False)
class ConfidenceCurve:
    """Precision, recall and F1 over the score threshold, each in [0,1]."""

    thresholds: Array  # (k,) scores in descending order
    precision: Array  # (k,) of the detections with at least that score
    recall: Array  # (k,)
    f1: Array  # (k,)

    def best(self) -> dict[str, float]:
        """Threshold with the highest F1 and the numbers there; empty without detections or objects."""
        if not len(self.f1):
            return {}
        i = int(self.f1.argmax())
        names = {"threshold": self.thresholds, "precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: float(values[i]) for name, values in names.items()}


def confidence_curve(matches: DetectionMatches, category: int | None = None) -> ConfidenceCurve:
    """Precision = TP / (TP + FP), recall = TP / objects, F1 = 2 TP / (TP + FP + objects) at every score.

    Args:
        category: position of a class; by default of all classes together.
    """
    wanted, counted = matches.valid, ~matches.ignored
    if category is not None:
        wanted = wanted & (matches.truth.category == category)
        counted = counted & (matches.detected.category == category)
    objects = int(wanted.sum())
    scores, right = matches.detected.scores[counted], matches.index[counted] >= 0
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # the last detection of each score
    if not objects:
        last = np.zeros(len(scores), bool)
    true = np.cumsum(right)[last]
    found = np.arange(1, len(scores) + 1)[last]
    return ConfidenceCurve(scores[last], true / found, true / max(objects, 1), 2 * true / (found + objects))


@dataclass(frozen=True)
class ImageErrors:
    """Errors on one image above a score threshold."""

    image: int  # position of the image in the columns
    true_positives: tuple[int, ...]  # positions of detections
    false_positives: tuple[int, ...]  # positions of detections
    missed: tuple[int, ...]  # positions of annotations

    @property
    def count(self) -> int:
        """Number of false positives and missed objects."""
        return len(self.false_positives) + len(self.missed)


def worst_images(matches: DetectionMatches, limit: int, score: float = 0.3) -> list[ImageErrors]:
    """The images with most errors at a score threshold, at most ``limit``, those with most errors first."""
    counts = matches.counts_by_image(score)[:, 1:].sum(1)
    worst = [int(i) for i in np.argsort(-counts, kind="stable")[:limit] if counts[i]]
    return [image_errors(matches, image, score) for image in worst]


def image_errors(matches: DetectionMatches, image: int, score: float) -> ImageErrors:
    """True positives, false positives and missed objects of the image at position ``image`` at a score threshold."""
    confident = (matches.detected.image == image) & (matches.detected.scores >= score)
    right = confident & (matches.index >= 0)
    missed = matches.valid & (matches.truth.image == image)
    missed[matches.index[right]] = False
    return ImageErrors(
        image,
        tuple(np.flatnonzero(right).tolist()),
        tuple(np.flatnonzero(confident & matches.false_positives).tolist()),
        tuple(np.flatnonzero(missed).tolist()),
    )
