"""Figures of one evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from poise.evaluate.coco import Curves
from poise.evaluate.confusion import Confusion, confusion_matrix, match_pairs
from poise.evaluate.limits import COCO_LIMIT
from poise.evaluate.matching import ConfidenceCurve, confidence_curve, match_by_score
from poise.evaluate.metrics import percent
from poise.evaluate.panels import (
    PathLike,
    class_labels,
    class_line_color,
    legend_outside,
    panel,
    panels,
    save,
    sequential_colors,
)
from poise.evaluate.truth import Array, detection_columns, truth_columns
from poise.storage.coco import CocoDetection, CocoTruth
from poise.suggestions import plural

MAX_LINES = 20  # classes with a colored line; with more classes only the mean is named


def write_figures(
    truth: CocoTruth, detections: Sequence[CocoDetection], curves: Curves, folder: PathLike
) -> list[Path]:
    """Write the figures of one evaluation into ``folder``: curves, confusion matrices, scores and labels."""
    target = Path(folder)
    confusion = confusion_matrix(truth, detections)
    curve = confidence_curve(match_by_score(truth, detections))
    return [
        plot_precision_recall(curves, target / "precision_recall.png"),
        plot_precision_by_iou(curves, target / "precision_recall_by_iou.png"),
        plot_confusion(confusion, target / "confusion.png"),
        plot_confusion(confusion, target / "confusion_normalized.png", normalized=True),
        plot_confidence(curve, target / "confidence.png"),
        plot_scores(truth, detections, target / "scores.png"),
        plot_labels(truth, target / "labels.png"),
    ]


def plot_precision_recall(curves: Curves, path: PathLike, iou: float = 0.5) -> Path:
    """Plot precision over recall of every class at one IoU, and their mean."""
    figure, axes = panel((8.5, 5.5))
    precision = curves.precision[int(np.abs(curves.ious - iou).argmin())]
    known = [k for k in range(len(curves.names)) if np.isfinite(precision[:, k]).all()]
    named = len(known) <= MAX_LINES
    names = class_labels(curves.names)
    for k in known:
        label = f"{names[k]}  {percent(precision[:, k].mean())}" if named else None
        axes.plot(curves.recall, precision[:, k], color=class_line_color(k) if named else "0.8", lw=1.2, label=label)
    if known:
        mean = precision[:, known].mean(1)
        axes.plot(curves.recall, mean, color="black", lw=2.6, label=f"mean of {len(known)}  {percent(mean.mean())}")
    _precision_axes(axes, f"Precision and recall at IoU {iou:.2f}{_limit(curves)}", bool(known), "class and AP, %")
    return save(figure, path)


def plot_precision_by_iou(curves: Curves, path: PathLike) -> Path:
    """Plot precision over recall, mean over classes, at every IoU threshold."""
    figure, axes = panel((8.5, 5.5))
    known = np.isfinite(curves.precision).all((0, 1))
    tones = sequential_colors(len(curves.ious))
    for t, iou in enumerate(curves.ious):
        if known.any():
            mean = curves.precision[t][:, known].mean(1)
            axes.plot(curves.recall, mean, color=tones[t], lw=1.8, label=f"{iou:.2f}  {percent(mean.mean())}")
    title = f"Precision and recall, mean of {int(known.sum())} classes{_limit(curves)}"
    _precision_axes(axes, title, bool(known.any()), "IoU and AP, %")
    return save(figure, path)


def plot_confusion(confusion: Confusion, path: PathLike, normalized: bool = False, limit: int = 40) -> Path:
    """Draw the confusion matrix; colors are fractions of each row.

    Args:
        normalized: write percent of each row instead of counts.
        limit: maximum number of classes, those with most counts.
    """
    matrix, names = _largest(confusion, limit)
    size = len(names)
    side = min(20.0, 3.2 + 0.45 * size)
    figure, axes = panel((side + 1, side))
    fraction = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    picture = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted class (background: missed object)")
    axes.set_ylabel("true class (background: no object)")
    note = "" if size == len(confusion.matrix) else f", {size - 1} of {len(confusion.matrix) - 1} classes"
    unit = ", percent of the true class" if normalized else ""
    axes.set_title(f"Confusion at IoU {confusion.iou:.2f}, score ≥ {confusion.score:.2f}{unit}{note}")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            ink = "white" if fraction[row, column] > 0.55 else "black"
            text = f"{100 * fraction[row, column]:.0f}" if normalized else f"{count}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8 if size > 15 else 10)
    figure.colorbar(picture, ax=axes, label="fraction of the true class", fraction=0.046)
    return save(figure, path)


def plot_confidence(curve: ConfidenceCurve, path: PathLike, iou: float = 0.5) -> Path:
    """Plot precision, recall and F1 of all classes together over the score threshold; mark the highest F1."""
    figure, axes = panel((8, 5))
    title = f"Precision, recall and F1 at IoU {iou:.2f}"
    for name, values, color in (
        ("precision", curve.precision, "#0b6bcb"),
        ("recall", curve.recall, "#e07a3f"),
        ("F1", curve.f1, "#2a9d4a"),
    ):
        axes.step(curve.thresholds, 100 * values, where="pre", color=color, lw=1.8, label=name)
    best = curve.best()
    if best:
        axes.axvline(best["threshold"], color="0.4", lw=1, ls="--")
        title += f": highest F1 {percent(best['f1'])} % at score {best['threshold']:.2f}"
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no objects or no detections", ha="center", va="center", transform=axes.transAxes)
    axes.set(xlim=(0, 1), ylim=(0, 102), xlabel="score threshold", ylabel="%", title=title)
    axes.grid(alpha=0.3)
    return save(figure, path)


def plot_labels(truth: CocoTruth, path: PathLike, limit: int = 30) -> Path:
    """Plot the number of objects of each class, and histograms of the centers and the sizes of their boxes.

    Args:
        limit: maximum number of classes, those with most objects.
    """
    columns = truth_columns(truth)
    valid = ~(columns.crowd | columns.ignore)
    counts = np.bincount(columns.category[valid], minlength=len(columns.names))
    largest = np.argsort(-counts, kind="stable")[:limit]
    figure, (bars, centers, sizes) = panels(3, (5.0, 4.2))
    names = class_labels(columns.names)
    bars.barh(range(len(largest)), counts[largest], color=[class_line_color(int(k)) for k in largest])
    bars.set_yticks(range(len(largest)), [names[k] for k in largest], fontsize=8)
    bars.invert_yaxis()
    bars.set(xlabel="objects", title=f"{plural(int(valid.sum()), 'object')} of {plural(len(columns.names), 'class')}")
    extent = np.maximum(columns.sizes[columns.image[valid]], 1)
    boxes = columns.boxes[valid]
    middle, side = (boxes[:, :2] + boxes[:, 2:] / 2) / extent, boxes[:, 2:] / extent
    for axes, values, title, labels in (
        (centers, middle, "centers of the boxes", ("x / width", "y / height")),
        (sizes, side, "sizes of the boxes", ("width / image width", "height / image height")),
    ):
        axes.hist2d(values[:, 0], values[:, 1], bins=40, range=((0, 1), (0, 1)), cmap="viridis")
        axes.set(title=title, xlabel=labels[0], ylabel=labels[1])
    centers.invert_yaxis()
    return save(figure, path)


def plot_scores(truth: CocoTruth, detections: Sequence[CocoDetection], path: PathLike, iou: float = 0.5) -> Path:
    """Plot histograms of the scores of true and false positives at ``iou``."""
    figure, axes = panel((8, 5))
    right, scores = true_positives(truth, detections, iou)
    for part, color, name in ((~right, "#e07a3f", "false positives"), (right, "#2a9d4a", "true positives")):
        label = f"{name} ({part.sum()})"
        axes.hist(scores[part], bins=40, range=(0, 1), histtype="stepfilled", color=color, alpha=0.65, label=label)
    if len(scores):
        axes.set_yscale("symlog", linthresh=10)
    axes.set(xlim=(0, 1), xlabel="score", ylabel="detections", title=f"Scores of detections at IoU {iou:.2f}")
    axes.legend()
    axes.grid(alpha=0.3)
    return save(figure, path)


def true_positives(truth: CocoTruth, detections: Sequence[CocoDetection], iou: float = 0.5) -> tuple[Array, Array]:
    """Detections matched with an object of their class, by descending IoU, (n,) bool, and their scores, (n,)."""
    columns = truth_columns(truth)
    detected = detection_columns(detections, columns)
    right = np.zeros(len(detected.scores), bool)
    valid = ~(columns.crowd | columns.ignore)
    for image in np.unique(detected.image):
        selected, objects = np.flatnonzero(detected.image == image), np.flatnonzero((columns.image == image) & valid)
        labels, classes = detected.category[selected], columns.category[objects]
        pairs = match_pairs(detected.boxes[selected], columns.boxes[objects], labels, classes, iou=iou)
        right[[selected[i] for i, j in pairs if labels[i] == classes[j]]] = True
    return right, detected.scores


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


def _largest(confusion: Confusion, limit: int) -> tuple[Array, list[str]]:
    """The matrix of the ``limit`` classes with most counts and the background, and their names."""
    matrix = confusion.matrix
    weight = (matrix.sum(0) + matrix.sum(1))[:-1]
    kept = np.sort(np.argsort(-weight, kind="stable")[:limit])
    index = np.append(kept, len(weight))
    names = class_labels(confusion.names)
    return matrix[np.ix_(index, index)], [*(names[k] for k in kept), "background"]
