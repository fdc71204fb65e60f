"""The part of a report that says what to do next: error types, thresholds, slices, likely label errors."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from poise.evaluate.metrics import percent

FIGURES = {
    "error_types.png": "AP50 lost by each type of error",
    "calibration.png": "Scores against precision",
}
ADVICE = {
    "classification": "The boxes fit but the class is wrong: look at the confusion matrix and at labels of classes "
    "that are confused.",
    "localization": "The class is right but the box is inexact (IoU 0.1 to 0.5): larger images, longer training, exact "
    "annotations.",
    "both": "Class and box are wrong.",
    "duplicate": "Several detections of one object: a lower NMS threshold.",
    "background": "Detections where nothing is annotated: missing annotations (see the likely label errors), or more "
    "images without objects.",
    "missed": "Objects that no detection covers: see the slices for their size and crowding; larger images, more data "
    "of such objects.",
}


def analysis_tables(analysis: Mapping[str, Any]) -> str:
    """Thresholds of the classes, and slices; empty without an analysis."""
    if not analysis:
        return ""
    thresholds = [{**analysis["threshold"], "name": "all classes"}, *analysis["thresholds"]]
    rows = [
        (one["name"], _score(one["threshold"]), *(percent(one[key]) for key in ("f1", "precision", "recall")))
        for one in thresholds
    ]
    slices = [
        (
            f"{one['group']}: {one['name']}",
            percent(one["ap"]) if one["objects"] else "no objects",
            percent(one["ap50"]) if one["objects"] else "",
            str(one["objects"]),
            str(one["images"]),
        )
        for one in analysis["slices"]
    ]
    return (
        "<h2>Score thresholds of the highest F1, IoU 0.50</h2>"
        f"{table(('class', 'threshold', 'F1', 'precision', 'recall'), rows)}"
        f"<h2>Slices</h2>{table(('slice', 'AP', 'AP50', 'objects', 'images'), slices)}"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text."""
    head = "".join(f"<th>{html.escape(text)}" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{head}{body}</table></div>"


def advice(analysis: Mapping[str, Any]) -> str:
    """The type of error that costs most, and what helps against it; empty where no error costs AP."""
    known = [one for one in analysis.get("errors", ()) if one["ap_lost"]]
    if not known:
        return ""
    largest = max(known, key=lambda one: one["ap_lost"])
    lost = f"Most AP50 is lost by {largest['name']} errors ({percent(largest['ap_lost'])} points)."
    return f"{lost} {ADVICE[largest['name']]}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
