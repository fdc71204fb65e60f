"""Figures of one evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from poise.evaluate.coco import Curves
from poise.evaluate.confusion import Confusion, confusion_matrix, match_pairs
from poise.evaluate.limits import COCO_LIMIT
from poise.evaluate.panels import (
    PathLike,
    class_labels,
    class_line_color,
    legend_outside,
    panel,
    save,
    sequential_colors,
)
from poise.evaluate.truth import Array, detection_columns, truth_columns

MAX_LINES = 20  # classes with a colored line; with more classes only the mean is named


def write_figures(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], curves: Curves, folder: PathLike
) -> list[Path]:
    """Precision-recall curves (classes and IoU), confusion matrix and scores of one evaluation, in ``folder``."""
    target = Path(folder)
    return [
        plot_precision_recall(curves, target / "precision_recall.png"),
        plot_precision_by_iou(curves, target / "precision_recall_by_iou.png"),
        plot_confusion(confusion_matrix(truth, detections), target / "confusion.png"),
        plot_scores(truth, detections, target / "scores.png"),
    ]


def plot_precision_recall(curves: Curves, path: PathLike, iou: float = 0.5) -> Path:
    """Precision against recall of every class at one IoU, and their mean."""
    figure, axes = panel((8.5, 5.5))
    precision = curves.precision[int(np.abs(curves.ious - iou).argmin())]
    known = [k for k in range(len(curves.names)) if np.isfinite(precision[:, k]).all()]
    named = len(known) <= MAX_LINES
    names = class_labels(curves.names)
    for k in known:
        label = f"{names[k]}  {precision[:, k].mean():.3f}" if named else None
        axes.plot(curves.recall, precision[:, k], color=class_line_color(k) if named else "0.8", lw=1.2, label=label)
    if known:
        mean = precision[:, known].mean(1)
        axes.plot(curves.recall, mean, color="black", lw=2.6, label=f"mean of {len(known)}  {mean.mean():.3f}")
    _precision_axes(axes, f"Precision and recall at IoU {iou:.2f}{_limit(curves)}", bool(known), "class and AP")
    return save(figure, path)


def plot_precision_by_iou(curves: Curves, path: PathLike) -> Path:
    """Precision against recall, mean over classes, at every IoU threshold."""
    figure, axes = panel((8.5, 5.5))
    known = np.isfinite(curves.precision).all((0, 1))
    tones = sequential_colors(len(curves.ious))
    for t, iou in enumerate(curves.ious):
        if known.any():
            mean = curves.precision[t][:, known].mean(1)
            axes.plot(curves.recall, mean, color=tones[t], lw=1.8, label=f"{iou:.2f}  {mean.mean():.3f}")
    title = f"Precision and recall, mean of {int(known.sum())} classes{_limit(curves)}"
    _precision_axes(axes, title, bool(known.any()), "IoU and AP")
    return save(figure, path)


def plot_confusion(confusion: Confusion, path: PathLike, most: int = 40) -> Path:
    """Counts as numbers, shares of each row as sequential_colors; of many classes the ``most`` with most counts."""
    matrix, names = _largest(confusion, most)
    size = len(names)
    side = min(20.0, 3.2 + 0.45 * size)
    figure, axes = panel((side + 1, side))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted class (background: missed)")
    axes.set_ylabel("true class (background: nothing there)")
    note = "" if size == len(confusion.matrix) else f", {size - 1} of {len(confusion.matrix) - 1} classes"
    axes.set_title(f"Confusion at IoU {confusion.iou:.2f}, score ≥ {confusion.score:.2f}{note}")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            ink = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=8 if size > 15 else 10)
    figure.colorbar(picture, ax=axes, label="share of the true class", fraction=0.046)
    return save(figure, path)


def plot_scores(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], path: PathLike, iou: float = 0.5
) -> Path:
    """How many detections of each score are right (an object of their class at ``iou``) and how many are not."""
    figure, axes = panel((8, 5))
    right, scores = true_positives(truth, detections, iou)
    for part, color, name in ((~right, "#e07a3f", "wrong"), (right, "#2a9d4a", "right")):
        label = f"{name} ({part.sum()})"
        axes.hist(scores[part], bins=40, range=(0, 1), histtype="stepfilled", color=color, alpha=0.65, label=label)
    if len(scores):
        axes.set_yscale("symlog", linthresh=10)
    axes.set(xlim=(0, 1), xlabel="score", ylabel="detections", title=f"Scores of detections, right at IoU {iou:.2f}")
    axes.legend()
    axes.grid(alpha=0.3)
    return save(figure, path)


def true_positives(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> tuple[Array, Array]:
    """Which detections match an object of their class, one to one by falling IoU, and all scores: (n,) bool, (n,)."""
    columns = truth_columns(truth)
    found = detection_columns(detections, columns)
    right = np.zeros(len(found.scores), bool)
    wanted = ~(columns.crowd | columns.ignore)
    for image in np.unique(found.image):
        chosen, objects = np.flatnonzero(found.image == image), np.flatnonzero((columns.image == image) & wanted)
        labels, classes = found.category[chosen], columns.category[objects]
        pairs = match_pairs(found.boxes[chosen], columns.boxes[objects], labels, classes, iou)
        right[[chosen[i] for i, j in pairs if labels[i] == classes[j]]] = True
    return right, found.scores


def _limit(curves: Curves) -> str:
    """The number of detections that count, where it is not the usual one."""
    usual = curves.max_detections <= COCO_LIMIT
    return "" if usual else f", {curves.max_detections} detections per image and class"


def _precision_axes(axes: Axes, title: str, filled: bool, heading: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    axes.grid(alpha=0.3)
    if filled:
        legend_outside(axes, heading)
    else:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color="0.4")


def _largest(confusion: Confusion, most: int) -> tuple[Array, list[str]]:
    """The matrix of the ``most`` classes with most counts, and background."""
    matrix = confusion.matrix
    weight = (matrix.sum(0) + matrix.sum(1))[:-1]
    kept = np.sort(np.argsort(-weight, kind="stable")[:most])
    index = np.append(kept, len(weight))
    names = class_labels(confusion.names)
    return matrix[np.ix_(index, index)], [*(names[k] for k in kept), "background"]
