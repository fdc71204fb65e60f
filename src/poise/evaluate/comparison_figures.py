"""Figures of a comparison, as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poise.evaluate.comparison import Comparison
from poise.evaluate.panels import PathLike, class_labels, panel, save

MAX_CLASSES = 30


def write_comparison_figures(comparison: Comparison, folder: PathLike) -> list[Path]:
    """Write the figures of a comparison into ``folder``."""
    target = Path(folder)
    return [
        plot_differences(comparison, target / "differences.png"),
        plot_image_errors(comparison, target / "images.png"),
    ]


def plot_differences(comparison: Comparison, path: PathLike) -> Path:
    """Plot the difference of AP over all classes and of each class (at most 30) with their intervals."""
    known = [one for one in comparison.classes if one.interval.difference == one.interval.difference]
    largest = sorted(known, key=lambda one: -abs(one.interval.difference))[:MAX_CLASSES]
    names = class_labels([one.name for one in comparison.classes])
    label = {one.name: name for one, name in zip(comparison.classes, names, strict=True)}
    rows = [("all classes", comparison.interval), *((label[one.name], one.interval) for one in largest)]
    figure, axes = panel((7.5, 1.6 + 0.34 * len(rows)))
    axes.axvline(0, color="0.5", lw=1)
    for row, (_, one) in enumerate(rows):
        color = {"better": "#2a9d4a", "worse": "#c0392b"}.get(one.verdict, "0.35")
        axes.plot([100 * one.low, 100 * one.high], [row, row], color=color, lw=2.2)
        axes.plot(100 * one.difference, row, "o", color=color)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference of AP, percentage points, with its {100 * comparison.confidence:g} % interval")
    axes.set_title("right of 0: the second is better")
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def plot_image_errors(comparison: Comparison, path: PathLike) -> Path:
    """Plot the errors of the second evaluation over those of the first, one point per image."""
    figure, axes = panel((5.5, 5.2))
    errors = np.array([[f + m for f, m in zip(one.false, one.missed, strict=True)] for one in comparison.images])
    errors = errors.reshape(-1, 2)
    limit = max(1, int(errors.max(initial=1)))
    points, counts = np.unique(errors, axis=0, return_counts=True)
    axes.plot((0, limit), (0, limit), color="0.6", ls="--", lw=1)
    axes.scatter(points[:, 0], points[:, 1], s=18 * np.sqrt(counts), color="#0b6bcb", alpha=0.6)
    axes.set(xlabel="errors of the first on an image", ylabel="errors of the second")
    axes.set_title("false positives and missed objects; below the line: fewer errors of the second", fontsize=9)
    axes.grid(alpha=0.3)
    return save(figure, path)
