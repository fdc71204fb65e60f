"""A paired bootstrap interval of the difference between the AP of two evaluations, over their images.

COCO's matching of an image does not depend on other images. So a data set in which images are drawn with replacement is
evaluated by weighting each detection and object by how often its image was drawn, without matching again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import hotcoco
import numpy as np

from poise.evaluate.coco import to_hotcoco
from poise.evaluate.lvis import is_lvis, lvis_evaluator
from poise.evaluate.truth import Array, detection_columns, truth_columns
from poise.storage.coco import CocoDetection, CocoTruth

RECALLS = np.linspace(0, 1, 101)
AREAS = [[0.0, 1e10]]  # all sizes
FLAGS = ("dtMatched", "dtIgnore")  # hotcoco's names of matched and ignored detections


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """What AP needs of an evaluation: detections in descending order of score, and the objects of each image."""

    image: Array  # (n,) int64 position of the image
    category: Array  # (n,) int64 position of the class
    right: Array  # (n,T) bool: matched with an object at each IoU threshold
    ignored: Array  # (n,T) bool: neither a true nor a false positive
    objects: Array  # (I,C) int64 objects to be found

    @cached_property
    def by_class(self) -> list[tuple[Array, list[tuple[Array, Array | None]]]]:
        """For each class the images of its detections, (n,), and for each threshold the true positives among them.

        Precision is highest at a true positive, so that no other row is needed. The second of a threshold's pair, (n,),
        is False for ignored detections; None where none is ignored.
        """
        found = []
        for category in range(self.objects.shape[1]):
            rows = np.flatnonzero(self.category == category)
            right, ignored = self.right[rows], self.ignored[rows]
            columns = range(right.shape[1])
            pairs = [(np.flatnonzero(right[:, t]), ~ignored[:, t] if ignored[:, t].any() else None) for t in columns]
            found.append((self.image[rows], pairs))
        return found


def image_matches(truth: CocoTruth, detections: Sequence[CocoDetection]) -> ImageMatches:
    """COCO's (LVIS's on LVIS data) matching at its ten IoU thresholds, with its limit of detections per image.

    Args:
        truth: COCO dictionary.
        detections: COCO results.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    if is_lvis(truth):
        evaluator = lvis_evaluator(truth, columns, detected)
    else:
        evaluator = hotcoco.COCOeval(*to_hotcoco(columns, detected), "bbox")
        evaluator.params.area_rng, evaluator.params.area_rng_lbl = AREAS, ["all"]
    evaluator.evaluate()
    limit, thresholds = evaluator.params.max_dets[-1], len(evaluator.params.iou_thrs)
    objects = np.zeros((len(columns.image_ids), len(columns.names)), np.int64)
    parts: list[tuple[Array, ...]] = []
    for one in evaluator.eval_imgs:
        if one is None or one["aRng"][1] < AREAS[0][1] or one["aRng"][0] > 0:
            continue
        image, category = one["image_id"] - 1, one["category_id"] - 1
        objects[image, category] = len(one["gtIgnore"]) - sum(one["gtIgnore"])
        scores = np.array(one["dtScores"][:limit], np.float64)
        matched, ignored = (np.array(one[key], bool).reshape(thresholds, -1) for key in FLAGS)
        right = (matched & ~ignored)[:, :limit].T
        where = np.full(len(scores), image), np.full(len(scores), category)
        parts.append((scores, *where, right, ignored[:, :limit].T))
    empty = (np.zeros(0), np.zeros(0, int), np.zeros(0, int), *[np.zeros((0, thresholds), bool)] * 2)
    scores, image, category, right, ignored = (np.concatenate(p) for p in zip(*(parts or [empty]), strict=True))
    order = np.argsort(-scores, kind="stable")
    return ImageMatches(image[order], category[order], right[order], ignored[order], objects)


def class_precision(matches: ImageMatches, weights: Array) -> Array:
    """AP of each class, (C,), when image i occurs ``weights[i]`` times; NaN for a class that then has no objects."""
    total = weights @ matches.objects.astype(float)
    values = np.full(len(total), np.nan)
    for category in np.flatnonzero(total):
        images, thresholds = matches.by_class[category]
        weight = weights[images].astype(float)
        counted = np.cumsum(weight)
        precision = 0.0
        for right, counts in thresholds:
            found = np.cumsum(weight[right])
            seen = (counted if counts is None else np.cumsum(weight * counts))[right]
            precision += _interpolated(found, seen, total[category])
        values[category] = precision / max(len(thresholds), 1)
    return values


def average_precision(matches: ImageMatches, weights: Array) -> float:
    """AP when image i occurs ``weights[i]`` times: the mean over the classes that then have objects, or NaN."""
    values = class_precision(matches, weights)
    known = np.isfinite(values)
    return float(values[known].mean()) if known.any() else float("nan")


def _interpolated(found: Array, seen: Array, objects: float) -> float:
    """Mean over 101 recalls of the highest precision at that recall or a higher one.

    Args:
        found: (n,) sum of the true positives up to each true positive.
        seen: (n,) sum of all detections that count up to each true positive.
        objects: how many objects there are.
    """
    precision = found / np.maximum(seen, np.finfo(float).eps)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(found / objects, RECALLS, side="left")
    return float(envelope[first[first < len(envelope)]].sum() / len(RECALLS))


@dataclass(frozen=True)
class Interval:
    """A difference of AP in [-1,1] and its bootstrap interval; NaN where it is undefined."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval does not contain 0, else ``not distinguishable``."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not distinguishable"


def paired_differences(
    first: Sequence[ImageMatches], second: Sequence[ImageMatches], draws: int, seed: int = 0
) -> Array:
    """AP(second) - AP(first) of each class of ``draws`` data sets of images drawn with replacement, (draws,C).

    Draw k takes as many runs and as many images as there are, the same for both, with
    ``numpy.random.default_rng(seed)``, and averages over the runs. A class without objects in a draw is NaN there.

    Args:
        first, second: the runs of both, pair by pair, such as one for each seed of a training; one each is enough.
    """
    images = len(first[0].objects)
    for one in (*first, *second):
        if len(one.objects) != images:
            raise ValueError(f"evaluations of {images} and of {len(one.objects)} images cannot be paired")
    generator = np.random.default_rng(seed)
    differences = np.empty((draws, first[0].objects.shape[1]))
    for k in range(draws):
        runs = generator.integers(0, len(first), len(first)).tolist()
        weights = np.bincount(generator.integers(0, images, images), minlength=images)
        gains = {run: class_precision(second[run], weights) - class_precision(first[run], weights) for run in set(runs)}
        differences[k] = np.mean([gains[run] for run in runs], 0)
    return differences


def mean_of_known(drawn: Array) -> Array:
    """Mean over the classes that have objects in a draw, (draws,); NaN where none has."""
    known = np.isfinite(drawn)
    counts = known.sum(1)
    return np.where(counts > 0, np.where(known, drawn, 0).sum(1) / np.maximum(counts, 1), np.nan)


def interval(difference: float, drawn: Array, confidence: float = 0.95) -> Interval:
    """The percentile interval of drawn differences, (draws,); draws where it is undefined are left out."""
    known = drawn[np.isfinite(drawn)]
    if not len(known) or difference != difference:
        return Interval(difference, float("nan"), float("nan"))
    low, high = np.percentile(known, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(difference, float(low), float(high))
