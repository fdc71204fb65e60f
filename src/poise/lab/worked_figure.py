"""The figure of a worked example: the image with its positives, one object's priors, and the matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from poise.draw import class_color
from poise.lab.worked_example import Step, WorkedExample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAX_MAPS = 5
MAX_COLUMNS = 160  # priors of a matrix
MAX_ROWS = 40  # objects of a matrix
NEXT = 3  # candidates of an object in a matrix that it does not take
MATRICES = ("IoU", "anchor IoU", "candidate IoU", "cost", "plan", "metric", "positive weight", "negative probability")


def draw_example(
    example: WorkedExample, pixels: Tensor, number: int, class_names: Sequence[str], *, title: str
) -> Figure:
    """Draw a matplotlib figure.

    Args:
        pixels: the image (3,H,W) uint8, of any size.
        number: the object that is shown in detail, -1: none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    detail = number >= 0 and len(example.columns) > 0
    figure = Figure(figsize=(15, 13.5 if detail else 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    image = pixels.permute(1, 2, 0).numpy()
    if not detail:
        _draw_photo(figure.subplots(), example, image, number)
        return figure
    above, middle, below = figure.subfigures(3, 1, squeeze=False, height_ratios=(1.25, 0.85, 0.9))[:, 0]
    photo, curve = above.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_photo(photo, example, image, number)
    _draw_curve(curve, example, number, class_names)
    _draw_maps(middle, example, image, number)
    _draw_matrices(below, example)
    return figure


def object_color(number: int) -> tuple[float, float, float]:
    """The color of an object, as matplotlib takes it."""
    red, green, blue = class_color(number)
    return red / 255, green / 255, blue / 255


def _draw_photo(axes: Axes, example: WorkedExample, image: np.ndarray, number: int) -> None:
    from matplotlib.patches import Rectangle

    height, width = example.truth.sizes[0].tolist()
    axes.imshow(image, extent=(0, width, height, 0), alpha=0.85)
    centers = example.predictions.priors.centers[0].numpy()
    strides = example.predictions.priors.strides.flatten().numpy()
    for m in range(example.num_objects):
        x1, y1, x2, y2 = example.truth.boxes[0, m].tolist()
        bold = 2.6 if m == number else 1.2
        frame = Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=object_color(m), linewidth=bold, fill=False)
        axes.add_patch(frame)
        if example.num_objects <= MAX_ROWS:
            box = {"facecolor": object_color(m), "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
            axes.text(x1, y1, str(m), fontsize=7, color="w", bbox=box, va="bottom", clip_on=True)
    positive = example.assigned >= 0
    if "positive weight" in example.steps:  # priors with at least a tenth of their object's largest weight
        weight = example.steps["positive weight"].values
        positive[example.columns] &= (weight >= 0.1 * weight.amax(1, keepdim=True)).any(0)
    shown = positive.numpy()
    owners = example.assigned.numpy()[shown]
    sizes = 8 + 10 * np.log2(np.maximum(strides[shown], 8) / 8) if shown.any() else None
    colors = [object_color(int(m)) for m in owners]
    x, y = centers[shown].T
    axes.scatter(x, y, s=sizes, c=colors or None, edgecolors="k", linewidths=0.5, zorder=3)
    several = [one.prior for one in example.conflicts]
    if several:
        x, y = centers[several].T
        label = f"taken by several objects ({len(several)})"
        axes.scatter(x, y, s=70, facecolors="none", edgecolors="w", linewidths=1.3, zorder=4, label=label)
        axes.legend(fontsize=7, loc="lower left", facecolor="0.4", labelcolor="w")
    left, right, top, bottom = _window_of_all(example)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    what = "priors of large positive weight" if "positive weight" in example.steps else "positives"
    axes.set_title(f"objects and {what}; a larger dot is a coarser level", fontsize=9)


def _draw_curve(axes: Axes, example: WorkedExample, number: int, class_names: Sequence[str]) -> None:
    """Draw the values of an object's candidates by rank, with its threshold, k, or mixture."""
    columns = example.candidates(number)
    name = class_names[int(example.truth.labels[0, number])]
    values = example.steps[example.rank].values[number, columns].float().numpy()
    order = np.argsort(values if example.ascending else -values, kind="stable")
    order = order[: max(40, 3 * int(example.taken[number].sum()))]
    values, columns = values[order], [columns[i] for i in order]
    taken = example.taken[number, columns].numpy()
    owner = example.assigned[example.columns[columns]].numpy()
    kinds = {
        f"assigned to object {number}": taken & (owner == number),
        "taken, assigned to another object": taken & (owner != number),
        "not taken": ~taken,
    }
    rank = np.arange(1, len(values) + 1)
    for (label, mask), color in zip(kinds.items(), ("#1a7f37", "#d1730f", "0.7"), strict=True):
        if mask.any():
            axes.bar(rank[mask], values[mask], width=0.9, color=color, label=f"{label} ({int(mask.sum())})")
    steps = example.steps
    if "threshold" in steps:
        limit = float(steps["threshold"].values[number])
        axes.axhline(limit, color="k", linestyle="--", linewidth=1, label=f"threshold {limit:.3f}")
    for key in ("dynamic k", "supply"):
        if key in steps:
            k = int(steps[key].values[number])
            best = steps["best IoU"].values[number]
            label = f"k = max(1, ⌊{float(best.sum()):.2f}⌋) = {k}, of the {len(best)} best IoUs"
            axes.axvline(k + 0.5, color="k", linestyle="--", linewidth=1, label=label)
    if "component means" in steps:
        for i, color in enumerate(("#1a7f37", "0.4")):
            mean = float(steps["component means"].values[number, i])
            deviation = float(steps["component variances"].values[number, i]) ** 0.5
            weight = float(steps["component weights"].values[number, i])
            label = f"component {i + 1}: {weight:.2f} · N({mean:.2f}, {deviation:.2f}²)"
            axes.axhline(mean, color=color, linestyle="--", linewidth=1, label=label)
            axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.08)
    finite = values[np.isfinite(values)]
    if example.ascending and len(finite) and finite.max() > 8 * max(np.median(finite), 1e-9) and finite.min() >= 0:
        axes.set_yscale("symlog", linthresh=max(float(np.median(finite)), 1e-6))
    axes.set_xlabel(f"candidates of object {number} ({name}), by {example.rank}", fontsize=8)
    axes.set_ylabel(example.rank, fontsize=8)
    axes.set_title(f"object {number}: {example.rank}", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def shown_maps(example: WorkedExample) -> list[str]:
    """Names of the pair steps that are drawn as maps, what objects take last."""
    names = [
        name
        for name, step in example.steps.items()
        if step.axes == "MV" and name not in ("taken", "inside", "near", "candidate", "cost outside")
    ]
    if "negative probability" in names:  # a soft assignment
        others = [name for name in names if name not in (example.rank, "negative probability")]
        return [*others[: MAX_MAPS - 2], example.rank, "negative probability"]
    if example.rank in names and names.index(example.rank) >= MAX_MAPS - 1:
        names = [*names[: MAX_MAPS - 2], example.rank]
    return [*names[: MAX_MAPS - 1], "taken"]


def _draw_maps(figure: SubFigure, example: WorkedExample, image: np.ndarray, number: int) -> None:
    """Draw the pair values of one object at the priors of the level on which it takes most."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    names = shown_maps(example)
    queries = example.predictions.prior_kind == "queries"
    strides = example.predictions.priors.strides.flatten()[example.columns].numpy()
    shown = example.taken[number].numpy()
    if not shown.any():
        shown = example.steps[example.rank].values[number].isfinite().numpy()
    levels, counts = np.unique(strides[shown], return_counts=True)
    stride = float(levels[counts.argmax()]) if len(levels) else float(strides[0])
    columns = np.flatnonzero(strides == stride)
    centers = example.predictions.priors.centers[0][example.columns[columns]].numpy()
    side = max(stride, 8.0)
    window = _window(example, number, stride)
    height, width = example.truth.sizes[0].tolist()
    where = "references of the queries" if queries else f"priors of stride {stride:g}"
    figure.suptitle(f"object {number}, {where}", fontsize=9)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        values = example.steps[name].values[number, columns].float().numpy()
        axes.imshow(image, extent=(0, width, height, 0), alpha=0.55)
        finite = np.isfinite(values)
        finite = finite & (values > 0) if name == "taken" else finite
        cells = [Rectangle((x - side / 2, y - side / 2), side, side) for x, y in centers[finite]]
        low, high = _limits(values[finite], name, example)
        patches = PatchCollection(cells, cmap=_colors(name, example), alpha=0.72, linewidths=0)
        patches.set_array(values[finite])
        patches.set_clim(low, high)
        axes.add_collection(patches)
        x1, y1, x2, y2 = example.truth.boxes[0, number].tolist()
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=object_color(number), linewidth=2, fill=False))
        axes.set(xlim=window[:2], ylim=(window[3], window[2]), xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
        if name != "taken":
            figure.colorbar(patches, ax=axes, shrink=0.8, pad=0.02).ax.tick_params(labelsize=6)


def _window_of_all(example: WorkedExample) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of what objects and positives cover, with a margin; else the whole image."""
    height, width = example.truth.sizes[0].tolist()
    if not example.num_objects:
        return 0.0, width, 0.0, height
    x1, y1 = example.truth.boxes[0, : example.num_objects, :2].amin(0).tolist()
    x2, y2 = example.truth.boxes[0, : example.num_objects, 2:].amax(0).tolist()
    margin = 0.15 * max(x2 - x1, y2 - y1) + 8
    return max(x1 - margin, 0), min(x2 + margin, width), max(y1 - margin, 0), min(y2 + margin, height)


def _window(example: WorkedExample, number: int, stride: float) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of a square around an object."""
    x1, y1, x2, y2 = example.truth.boxes[0, number].tolist()
    height, width = example.truth.sizes[0].tolist()
    half = 0.5 * max(1.35 * max(x2 - x1, y2 - y1), 6 * stride, 48)
    half = min(half, 0.5 * max(height, width))
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - half, x + half, y - half, y + half


def _limits(values: np.ndarray, name: str, example: WorkedExample) -> tuple[float, float]:
    """Range of the colors; of costs up to four times the largest one that is taken, since others are far larger."""
    if name == "taken" or not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if _is_cost(name, example) and low >= 0:
        taken = example.steps[name].values[example.taken]
        taken = taken[taken.isfinite()]
        high = min(high, 4 * float(taken.max())) if len(taken) else high
    return low, max(high, low + 1e-6)


def _colors(name: str, example: WorkedExample) -> str:
    """Name of a color map in which bright is good."""
    return "viridis_r" if _is_cost(name, example) else "viridis"


def _is_cost(name: str, example: WorkedExample) -> bool:
    return name.endswith("cost") or (name == example.rank and example.ascending)


def _draw_matrices(figure: SubFigure, example: WorkedExample) -> None:
    """Draw up to three matrices of objects and the priors that objects take, grouped by the object."""
    names = [name for name in MATRICES if name in example.steps and example.steps[name].axes == "MV"]
    if example.rank not in names:
        names.append(example.rank)
    soft = "negative probability" in example.steps
    names = ["IoU", example.rank, "negative probability"] if soft else [*names[:2], "taken"]
    columns = matrix_columns(example)
    several = f", the first {MAX_ROWS} of {example.num_objects} objects" if example.num_objects > MAX_ROWS else ""
    figure.suptitle(
        f"objects (rows) and {len(columns)} priors (columns): those that an object takes, then its next ones{several}",
        fontsize=9,
    )
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        step: Step = example.steps[name]
        values = step.values[:MAX_ROWS, columns].float().numpy()
        masked = np.ma.masked_invalid(values)
        low, high = _limits(values[np.isfinite(values)], name, example)
        picture = axes.imshow(
            masked, aspect="auto", cmap=_colors(name, example), vmin=low, vmax=high, interpolation="none"
        )
        axes.set_title(f"{name} {step.shape}", fontsize=8)
        axes.set_xlabel("priors, by the object that takes them", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.set_xticks([])
        axes.set_yticks(range(min(example.num_objects, MAX_ROWS)))
        if name == "taken":
            several_columns = (example.taken[:, columns].sum(0) > 1).nonzero().flatten().tolist()
            if several_columns:
                axes.plot(
                    several_columns, [-0.8] * len(several_columns), "v", color="#d1730f", markersize=4, clip_on=False
                )
                axes.set_title(f"{name} {step.shape}; ▾ conflicts", fontsize=8)
        else:
            figure.colorbar(picture, ax=axes, pad=0.02).ax.tick_params(labelsize=6)


def matrix_columns(example: WorkedExample) -> list[int]:
    """Columns that objects take, grouped by the first such object, each with the next candidates of that object."""
    columns: dict[int, None] = {}
    for m in range(min(example.num_objects, MAX_ROWS)):
        candidates = example.candidates(m)
        takes = int(example.taken[m].sum())
        if "positive weight" in example.steps:  # of soft assignments the priors with most of an object's weight
            weight = example.steps["positive weight"].values[m]
            takes = int((weight >= 0.1 * weight.amax()).sum())
        columns |= dict.fromkeys(candidates[: takes + NEXT])
    step = max(1, -(-len(columns) // MAX_COLUMNS))
    return list(columns)[::step]
