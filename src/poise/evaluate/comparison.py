"""Compare two evaluations of the same images: AP with a bootstrap interval, by class and image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from poise.evaluate.analysis import Threshold, best_threshold
from poise.evaluate.bootstrap import (
    Interval,
    average_precision,
    class_precision,
    image_matches,
    interval,
    mean_of_known,
    paired_differences,
)
from poise.evaluate.matching import DetectionMatches, match_by_score
from poise.evaluate.metrics import jsonable, percent
from poise.storage.coco import CocoDetection, CocoTruth
from poise.suggestions import plural

DRAWS = 1000


@dataclass(frozen=True)
class ClassComparison:
    """AP of one class in both evaluations, in [0,1], and the difference with its interval; NaN without objects."""

    name: str
    ap: tuple[float, float]
    interval: Interval
    objects: int


@dataclass(frozen=True)
class ImageComparison:
    """Errors of both evaluations on one image, each at its own best threshold, IoU 0.50."""

    image_id: int | str
    found: tuple[int, int]  # true positives
    false: tuple[int, int]  # false positives
    missed: tuple[int, int]

    @property
    def fewer_errors(self) -> int:
        """Number of errors of the first minus those of the second."""
        return self.false[0] + self.missed[0] - self.false[1] - self.missed[1]


@dataclass(frozen=True)
class Comparison:
    """Result of :func:`compare`: the second evaluation against the first. AP is in [0,1]."""

    names: tuple[str, str]
    ap: tuple[float, float]
    interval: Interval  # of AP(second) - AP(first)
    classes: tuple[ClassComparison, ...]
    images: tuple[ImageComparison, ...]  # those where the second has fewer errors first
    thresholds: tuple[Threshold, Threshold]  # of the highest F1, at which the images are compared
    draws: int
    confidence: float

    def to_dict(self) -> dict[str, object]:
        """The numbers as values for JSON; undefined ones are ``None``."""
        return jsonable({**asdict(self), "verdict": self.interval.verdict})

    def sentence(self) -> str:
        """The result in one sentence."""
        first, second = self.names
        if self.interval.difference != self.interval.difference:
            return f"{first} and {second} cannot be compared: no image has an object"
        verdict = self.interval.verdict
        conclusion = f"{second} is {verdict}" if verdict != "not distinguishable" else f"the two are {verdict}"
        return f"AP {percent(self.ap[0])} → {percent(self.ap[1])}: {_points(self.interval)}; {conclusion}"

    def table(self) -> str:
        """The comparison as text, in percent."""
        first, second = self.names
        better = sum(one.fewer_errors > 0 for one in self.images)
        worse = sum(one.fewer_errors < 0 for one in self.images)
        width = max(5, *(len(one.name) for one in self.classes)) if self.classes else 5
        lines = [f"first: {first}", f"second: {second}", self.sentence(), ""]
        lines.append(f"{'class':<{width}}  first  second  difference ({100 * self.confidence:g} % interval)  objects")
        for one in self.classes:
            both = f"{percent(one.ap[0]):>5}  {percent(one.ap[1]):>6}"
            lines.append(f"{one.name:<{width}}  {both}  {_points(one.interval):<29}  {one.objects:>7}")
        lines += ["", f"{plural(len(self.images), 'image')}: the second has fewer errors on {better}, more on {worse}"]
        return "\n".join(lines)


def compare(
    truth: CocoTruth,
    first: Sequence[CocoDetection],
    second: Sequence[CocoDetection],
    *,
    names: tuple[str, str] = ("first", "second"),
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two evaluations of the same images.

    Args:
        truth: COCO dictionary, of LVIS as well.
        first, second: COCO results of both.
        draws: data sets of images drawn with replacement, for the intervals.
        seed: of the draws.
        confidence: of the intervals, in (0,1).

    Raises:
        ValueError: inconsistent records, no draws, or a confidence outside of (0,1).
    """
    if draws < 1 or not 0 < confidence < 1:
        raise ValueError(f"draws={draws} must be at least 1 and confidence={confidence} must lie in (0, 1)")
    matched = image_matches(truth, first), image_matches(truth, second)
    whole = np.ones(len(matched[0].objects))
    ap = average_precision(matched[0], whole), average_precision(matched[1], whole)
    by_class = np.stack([class_precision(one, whole) for one in matched])
    drawn = paired_differences(matched[:1], matched[1:], draws, seed)
    matches = match_by_score(truth, first), match_by_score(truth, second)
    objects = matched[0].objects.sum(0)
    classes = tuple(
        ClassComparison(
            name=name,
            ap=(float(by_class[0, k]), float(by_class[1, k])),
            interval=interval(float(by_class[1, k] - by_class[0, k]), drawn[:, k], confidence),
            objects=int(objects[k]),
        )
        for k, name in enumerate(matches[0].truth.names)
    )
    thresholds = best_threshold(matches[0]), best_threshold(matches[1])
    return Comparison(
        names=names,
        ap=ap,
        interval=interval(ap[1] - ap[0], mean_of_known(drawn), confidence),
        classes=classes,
        images=_images(matches, (thresholds[0].threshold, thresholds[1].threshold)),
        thresholds=thresholds,
        draws=draws,
        confidence=confidence,
    )


def _images(
    matches: tuple[DetectionMatches, DetectionMatches], scores: tuple[float, float]
) -> tuple[ImageComparison, ...]:
    """Both at their thresholds; NaN (nothing found at all) counts no detection."""
    counts = [one.counts_by_image(score).tolist() for one, score in zip(matches, scores, strict=True)]
    images = [
        ImageComparison(image_id, *((a, b) for a, b in zip(*both, strict=True)))
        for image_id, *both in zip(matches[0].truth.image_ids, *counts, strict=True)
    ]
    return tuple(sorted(images, key=lambda one: -one.fewer_errors))


def _points(one: Interval) -> str:
    if one.difference != one.difference:
        return "no objects"
    return f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
