"""What to do next after an evaluation: error types, score thresholds, calibration, slices, images, label errors.

The error types are those of TIDE (Bolya et al. 2020): each is the AP that would be gained at IoU 0.50 if all errors of
the type were corrected. hotcoco computes them, the calibration, and the likely label errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import hotcoco

from poise.evaluate.coco import COCO_METRICS, run_evaluator, to_hotcoco
from poise.evaluate.lvis import LVIS_METRICS, is_lvis, lvis_evaluator
from poise.evaluate.matching import DetectionMatches, confidence_curve, match_by_score
from poise.evaluate.metrics import NAN, jsonable, percent
from poise.evaluate.slices import Slice, slices_of
from poise.evaluate.truth import DetectionColumns, TruthColumns, detection_columns, truth_columns
from poise.storage.coco import CocoDetection, CocoTruth

ERROR_TYPES = {
    "classification": "Cls",
    "localization": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
"""Our name of each error type to hotcoco's."""
ALL = "all classes"
LABEL_ERROR_SCORE = 0.5
MAX_LABEL_ERRORS = 100


@dataclass(frozen=True)
class ErrorType:
    """One of TIDE's error types."""

    name: str
    ap_lost: float  # AP at IoU 0.50 in [0,1] that correcting all errors of this type would gain
    count: int


@dataclass(frozen=True)
class Threshold:
    """The score threshold with the highest F1 at IoU 0.50, and the numbers there, in [0,1]; NaN where undefined."""

    name: str  # of the class; empty: over all classes
    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class CalibrationBin:
    """Detections with a score in [low, high): their mean score and the fraction that are true positives."""

    low: float
    high: float
    score: float
    precision: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """How well scores agree with precision at IoU 0.50."""

    error: float  # expected calibration error (ECE): mean |score - precision| over bins, weighted by count
    largest: float  # of all bins
    bins: tuple[CalibrationBin, ...]
    classes: dict[str, float]  # ECE of each class that has detections


@dataclass(frozen=True)
class ImageScore:
    """Errors on one image at IoU 0.50 and the threshold of the best F1 over all classes."""

    image_id: int | str
    found: int  # true positives
    false: int  # false positives
    missed: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN for an image without objects and detections."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else NAN


@dataclass(frozen=True)
class LabelError:
    """A confident detection that disagrees with the annotations."""

    kind: str  # "missing annotation": no object there; "wrong class": an object of another class there
    image_id: int | str
    detection: int  # position in the detections
    annotation: int | None  # position in the annotations, of the object of another class
    name: str  # the detected class
    annotated: str | None  # the annotated class
    score: float
    iou: float


@dataclass(frozen=True)
class Analysis:
    """Result of :func:`analyze`. Numbers are in [0,1]; undefined ones are NaN."""

    ap50: float
    errors: tuple[ErrorType, ...]
    threshold: Threshold  # over all classes
    thresholds: tuple[Threshold, ...]  # of each class
    calibration: Calibration
    slices: tuple[Slice, ...]
    images: tuple[ImageScore, ...]  # those with the lowest F1 first
    label_errors: tuple[LabelError, ...]  # highest score first, at most 100

    def to_dict(self) -> dict[str, object]:
        """The numbers as values for JSON; undefined ones are ``None``."""
        values = asdict(self)
        for record, image in zip(values["images"], self.images, strict=True):
            record["f1"] = image.f1
        return jsonable(values)

    def table(self) -> str:
        """The analysis as text, in percent."""
        lines = [f"AP50 {percent(self.ap50)}; AP50 lost by type of error (count):"]
        lines += [f"  {one.name:<15} {percent(one.ap_lost):>5}  ({one.count})" for one in self.errors]
        lines += ["", "score threshold of the highest F1 (precision, recall):"]
        width = max(len(ALL), *(len(one.name) for one in self.thresholds))
        lines += [_threshold_line(one, width) for one in (self.threshold, *self.thresholds)]
        error = self.calibration.error
        lines += ["", f"calibration error {percent(error)} (mean difference of score and precision, largest "]
        lines[-1] += f"{percent(self.calibration.largest)})"
        lines += ["", f"{'slice':<36}  {'AP':>5}  {'AP50':>5}  objects  images"]
        for one in self.slices:
            numbers = f"{percent(one.ap):>5}  {percent(one.ap50):>5}" if one.objects else f"{'no objects':<12}"
            lines.append(f"{one.group + ': ' + one.name:<36}  {numbers}  {one.objects:>7}  {one.images:>6}")
        lines += ["", f"likely label errors: {len(self.label_errors)}"]
        lines += [f"  {one.image_id}: {describe(one)}" for one in self.label_errors[:5]]
        return "\n".join(lines)


def analyze(truth: CocoTruth, detections: Sequence[CocoDetection]) -> Analysis:
    """Analyze the errors of an evaluation.

    Args:
        truth: COCO dictionary, of LVIS as well.
        detections: COCO results, in any order.

    Raises:
        ValueError: inconsistent records, or numbers that are not finite.
    """
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    evaluator = _evaluator(truth, columns, detected)
    matches = match_by_score(truth, detections)
    best = best_threshold(matches)
    tide, diagnostics = evaluator.tide_errors(), evaluator.image_diagnostics(score_thr=LABEL_ERROR_SCORE)
    has_objects = bool(matches.valid.any())
    lost = {name: float(tide["delta_ap"][key]) if has_objects else NAN for name, key in ERROR_TYPES.items()}
    return Analysis(
        ap50=float(tide["ap_base"]) if has_objects else NAN,
        errors=tuple(ErrorType(name, lost[name], int(tide["counts"][key])) for name, key in ERROR_TYPES.items()),
        threshold=best,
        thresholds=tuple(best_threshold(matches, k) for k in range(len(columns.names))),
        calibration=_calibration(evaluator.calibration()),
        slices=slices_of(truth, detections, evaluator),
        images=_images(matches, best.threshold),
        label_errors=_label_errors(diagnostics["label_errors"], columns),
    )


def best_threshold(matches: DetectionMatches, category: int | None = None) -> Threshold:
    """The score threshold with the highest F1, of one class (its position) or over all classes."""
    name = "" if category is None else matches.truth.names[category]
    best = confidence_curve(matches, category).best()
    numbers = (best.get(key, NAN) for key in ("threshold", "f1", "precision", "recall"))
    return Threshold(name, *numbers)


def describe(error: LabelError) -> str:
    """One label error in words."""
    what = f"{error.name} with score {error.score:.2f}"
    return f"{what}, annotated as {error.annotated}" if error.annotated else f"{what}, not annotated"


def _evaluator(truth: CocoTruth, columns: TruthColumns, detected: DetectionColumns) -> hotcoco.COCOeval:
    if is_lvis(truth):
        evaluator = lvis_evaluator(truth, columns, detected)
        run_evaluator(evaluator, LVIS_METRICS)
        return evaluator
    evaluator = hotcoco.COCOeval(*to_hotcoco(columns, detected), "bbox")
    run_evaluator(evaluator, COCO_METRICS)
    return evaluator


def _threshold_line(one: Threshold, width: int) -> str:
    if one.f1 != one.f1:
        return f"  {one.name or ALL:<{width}}  no objects or no detections"
    numbers = f"F1 {percent(one.f1)}  ({percent(one.precision)}, {percent(one.recall)})"
    return f"  {one.name or ALL:<{width}}  {one.threshold:.2f}  {numbers}"


def _calibration(values: Mapping[str, Any]) -> Calibration:
    bins = tuple(
        CalibrationBin(one["bin_lower"], one["bin_upper"], one["avg_confidence"], one["avg_accuracy"], one["count"])
        for one in values["bins"]
        if one["count"]
    )
    if not bins:
        return Calibration(NAN, NAN, (), {})
    return Calibration(float(values["ece"]), float(values["mce"]), bins, dict(values["per_category"]))


def _images(matches: DetectionMatches, score: float) -> tuple[ImageScore, ...]:
    scores = [
        ImageScore(image_id, *counts)
        for image_id, counts in zip(matches.truth.image_ids, matches.counts_by_image(score).tolist(), strict=True)
    ]
    return tuple(sorted(scores, key=lambda one: (one.f1 != one.f1, one.f1, -one.false - one.missed)))


def _label_errors(records: Sequence[Mapping[str, Any]], columns: TruthColumns) -> tuple[LabelError, ...]:
    """hotcoco's candidates; its ids are positions + 1 (detections are numbered in the order given)."""
    errors = [
        LabelError(
            kind="wrong class" if one["gt_id"] is not None else "missing annotation",
            image_id=columns.image_ids[one["image_id"] - 1],
            detection=one["dt_id"] - 1,
            annotation=None if one["gt_id"] is None else one["gt_id"] - 1,
            name=one["dt_category"],
            annotated=one["gt_category"],
            score=float(one["dt_score"]),
            iou=float(one["iou"]),
        )
        for one in records
        if one["gt_id"] is None or not (columns.crowd | columns.ignore)[one["gt_id"] - 1]
    ]
    return tuple(sorted(errors, key=lambda one: -one.score)[:MAX_LABEL_ERRORS])
