"""Figures of an analysis, as PNG files: error types, calibration, slices."""

from __future__ import annotations

from pathlib import Path

from poise.evaluate.analysis import Analysis
from poise.evaluate.metrics import percent
from poise.evaluate.panels import PathLike, panel, save

BLUE, ORANGE = "#0b6bcb", "#e07a3f"


def write_analysis_figures(analysis: Analysis, folder: PathLike) -> list[Path]:
    """Write the figures of an analysis into ``folder``."""
    target = Path(folder)
    return [
        plot_error_types(analysis, target / "error_types.png"),
        plot_calibration(analysis, target / "calibration.png"),
        plot_slices(analysis, target / "slices.png"),
    ]


def plot_error_types(analysis: Analysis, path: PathLike) -> Path:
    """Plot the AP50 that each type of error costs, with the number of errors."""
    figure, axes = panel((7.5, 4))
    names = [one.name for one in analysis.errors]
    lost = [0.0 if one.ap_lost != one.ap_lost else 100 * one.ap_lost for one in analysis.errors]
    axes.barh(names, lost, color=ORANGE)
    for row, (one, value) in enumerate(zip(analysis.errors, lost, strict=True)):
        axes.text(max(value, 0), row, f" {percent(one.ap_lost)}  ({one.count})", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.25 * max(1.0, *lost)), xlabel="AP50 lost, percentage points (number of errors)")
    axes.set_title(f"Types of errors; AP50 is {percent(analysis.ap50)}")
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def plot_calibration(analysis: Analysis, path: PathLike) -> Path:
    """Plot the precision of the detections of each bin of scores over their mean score."""
    figure, axes = panel((6.5, 5))
    bins = analysis.calibration.bins
    axes.plot((0, 1), (0, 1), color="0.6", ls="--", lw=1, label="precision equal to the score")
    if bins:
        scores, precision = [one.score for one in bins], [one.precision for one in bins]
        axes.plot(scores, precision, marker="o", color=BLUE, lw=1.8, label="detections by score")
        for one in bins:
            axes.annotate(f"{one.count}", (one.score, one.precision), (0, 6), textcoords="offset points", fontsize=7)
        axes.set_title(f"Calibration error {percent(analysis.calibration.error)}; numbers: detections")
    else:
        axes.text(0.5, 0.4, "no detections", ha="center", color="0.4")
    axes.set(xlim=(0, 1), ylim=(0, 1.05), xlabel="mean score", ylabel="precision at IoU 0.50")
    axes.legend(loc="upper left", fontsize=8)
    axes.grid(alpha=0.3)
    return save(figure, path)


def plot_slices(analysis: Analysis, path: PathLike) -> Path:
    """Plot AP of each slice, with the number of objects."""
    figure, axes = panel((8.5, 0.8 + 0.34 * len(analysis.slices)))
    for row, one in enumerate(analysis.slices):
        value = 100 * one.ap if one.objects else 0.0
        axes.barh(row, value, color=BLUE)
        text = f" {percent(one.ap)}  ({one.objects})" if one.objects else " no objects"
        axes.text(value, row, text, va="center", fontsize=8)
    axes.set_yticks(range(len(analysis.slices)), [f"{one.group}: {one.name}" for one in analysis.slices], fontsize=8)
    axes.invert_yaxis()
    values = [100 * one.ap for one in analysis.slices if one.objects]
    axes.set(xlim=(0, 1.2 * max([1.0, *values])), xlabel="AP, % (number of objects)")
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)
