"""Figures of the measurements in ``poise.lab.measurements``."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poise.lab.annotated_image import AnnotatedImage
from poise.lab.auxiliary_queries import QueryDistances
from poise.lab.conflict import HeadConflict
from poise.lab.instability import Instability
from poise.lab.measurements import MapExample, QueryExample
from poise.lab.separation import Separation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#d62728", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf")  # of the queries of auxiliary heads


def draw_curves(results: Mapping[str, Separation], path: str | os.PathLike[str], title: str) -> Path:
    """Draw IoB over IoF of each method, and both over the threshold."""
    figure = new_figure(10.4, 4.4)
    pair, steps = figure.subplots(1, 2)
    for i, (name, one) in enumerate(results.items()):
        if not one.images:
            continue
        iof, iob = (curve.numpy() for curve in one.curves())
        pair.plot(iof, iob, label=f"{name} ({one.mean('contrast'):.3f})", color=f"C{i}")
        steps.plot(one.thresholds, iof, color=f"C{i}")
        steps.plot(one.thresholds, iob, color=f"C{i}", linestyle="--")
    pair.plot([0, 1], [1, 0], color="0.8", linewidth=1, zorder=0)
    pair.set(xlabel="IoF: fraction of the foreground above the threshold", xlim=(0, 1), ylim=(0, 1.01))
    pair.set_ylabel("IoB: fraction of the background below it")
    steps.set(xlabel="threshold S", xlim=(_first_threshold(results), 1), ylim=(0, 1.01))
    pair.set_title("IoB over IoF (in brackets: contrast)", fontsize=9)
    steps.set_title("IoF (solid) and IoB (dashed) over the threshold", fontsize=9)
    pair.legend(fontsize=7, frameon=False, loc="lower left")
    return save_figure(figure, path, title)


def _first_threshold(results: Mapping[str, Separation]) -> float:
    """Lower end of the threshold axis: below the first change of a curve where that is above 0.5, else 0."""
    starts = [
        float(one.thresholds[(one.curves()[1] > 0.005).nonzero()[:1]].sum()) for one in results.values() if one.images
    ]
    first = min(starts, default=0.0)
    return max(0.0, 1 - 1.25 * (1 - first)) if first > 0.5 else 0.0


def draw_maps(examples: Sequence[MapExample], path: str | os.PathLike[str], title: str) -> Path:
    """Draw a row for each image: the image with its objects, and the map of each method in its own color range."""
    names = list(dict.fromkeys(name for one in examples for name in one.maps))
    figure = new_figure(2.6 * (1 + len(names)), 2.4 * max(len(examples), 1) + 0.4)
    grid = figure.subplots(max(len(examples), 1), 1 + len(names), squeeze=False)
    for row, one in zip(grid, examples, strict=False):
        _draw_image(row[0], one.image)
        for axes, name in zip(row[1:], names, strict=True):
            if name in one.maps:
                map_ = one.maps[name]
                axes.imshow(map_, cmap="inferno")
                style = {"transform": axes.transAxes, "fontsize": 7, "color": "0.4", "va": "top", "ha": "center"}
                axes.text(0.5, -0.02, f"{map_.min():.6g} (dark) to {map_.max():.6g}", **style)
    for axes, name in zip(grid[0], ("objects", *names), strict=True):
        axes.set_title(textwrap.fill(name, 36), fontsize=7)
    for axes in grid.flat:
        axes.set_axis_off()
    return save_figure(figure, path, title)


def draw_instability(
    results: Sequence[Mapping[tuple[str, str], Mapping[str, Instability]]], path: str | os.PathLike[str], title: str
) -> Path:
    """Draw a panel for each stage with a line for each training: changed priors, and rematched objects in percent."""
    stages = list(dict.fromkeys(stage for series in results for one in series.values() for stage in one))
    figure = new_figure(4.2 * len(stages), 6.4)
    grid = figure.subplots(2, len(stages), squeeze=False)
    for column, stage in enumerate(stages):
        for series in results:
            numbers = [one[stage].to_dict() if stage in one else {} for one in series.values()]
            steps, label = range(1, len(numbers) + 1), next(iter(series))[0]
            for axes, name, factor in (
                (grid[0][column], "instability", 1),
                (grid[1][column], "objects_rematched", 100),
            ):
                values = [np.nan if one.get(name) is None else factor * one[name] for one in numbers]
                axes.plot(steps, values, marker="o", markersize=4, label=label)
                axes.set_xticks(list(steps))
                axes.set_ylim(bottom=0)
        grid[0][column].set_title(stage, fontsize=9)
        grid[1][column].set_xlabel("pair of consecutive states")
    grid[0][0].set_ylabel("priors with another object, per image")
    grid[1][0].set_ylabel("objects with other priors, %")
    grid[0][0].legend(fontsize=7, frameon=False)
    return save_figure(figure, path, title)


def draw_conflict(results: Mapping[str, HeadConflict], path: str | os.PathLike[str], title: str) -> Path:
    """Draw a matrix of divergences for each model."""
    figure = new_figure(3.4 * len(results) + 0.6, 3.6)
    for axes, (name, one) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        heads = one.heads
        values = np.array([[one.divergence(i, j) for j in heads] for i in heads]).reshape(len(heads), len(heads))
        axes.imshow(values, cmap="Purples", vmin=0)
        for i, j in np.ndindex(values.shape):
            dark = values[i, j] > 0.6 * np.nanmax(values)
            text = "?" if np.isnan(values[i, j]) else f"{values[i, j]:.2f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="w" if dark else "k")
        axes.set_xticks(range(len(heads)), heads, rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(heads)), heads, fontsize=8)
        axes.set_title(name, fontsize=9)
    return save_figure(figure, path, title)


def draw_queries(
    results: Mapping[str, QueryDistances], examples: Sequence[QueryExample], path: str | os.PathLike[str], title: str
) -> Path:
    """Draw a row for each method: its queries on the images, and the mean distances of each head's queries."""
    figure = new_figure(2.8 * len(examples) + 3.6, 2.7 * len(results) + 0.4)
    widths = [1.0] * len(examples) + [1.3]
    grid = figure.subplots(len(results), len(examples) + 1, squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, (name, one) in zip(grid, results.items(), strict=True):
        for axes, example in zip(row, examples, strict=False):
            _draw_image(axes, example.image)
            axes.set_axis_off()
            if name in example.queries:
                _scatter(axes, example, name)
        row[0].set_title(name, fontsize=8, loc="left")
        _bars(row[-1], one)
    entries = [axes.get_legend_handles_labels() for axes in grid[:, 0]]
    handles, labels = max(entries, key=lambda one: len(one[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return save_figure(figure, path, title)


def _scatter(axes: Axes, example: QueryExample, name: str) -> None:
    queries, (height, width) = example.queries[name], example.image.pixels.shape[1:]
    kinds = [
        ("negative queries", queries.negative, "#bbbbbb", 4),
        ("positive queries", queries.positive, "#1f77b4", 26),
    ]
    kinds += [(f"auxiliary, {head}", one, COLORS[i % 6], 9) for i, (head, one) in enumerate(queries.auxiliary.items())]
    for order in (0, *range(2, len(kinds)), 1):  # the few positive queries of the decoder on top
        label, one, color, size = kinds[order]
        x, y = (one.centers * one.centers.new_tensor([width, height])).numpy().T
        axes.scatter(x, y, s=size, c=color, label=label, linewidths=0.3, edgecolors="k" if order else "none")


def _bars(axes: Axes, one: QueryDistances) -> None:
    heads = list(one.to_dict()["distance"])
    for i, kind in enumerate(("positive", "negative")):
        for k, measure in enumerate(("all_pairs", "nearest")):
            values = [one.mean(head, kind)[measure] or 0.0 for head in heads]
            label = f"to {kind} queries, {'all pairs' if measure == 'all_pairs' else measure}"
            position = np.arange(len(heads)) + 0.2 * (2 * k + i)
            axes.bar(position, values, 0.2, label=label, color=("#1f77b4", "#bbbbbb")[i], alpha=(1, 0.55)[k])
    axes.set_xticks(np.arange(len(heads)) + 0.3, heads, fontsize=8)
    axes.set_ylabel("mean distance / image diagonal", fontsize=8)
    if heads:
        axes.margins(y=0.4)
        axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=2)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no auxiliary queries", ha="center", fontsize=8, transform=axes.transAxes)


def _draw_image(axes: Axes, image: AnnotatedImage) -> None:
    from matplotlib.patches import Rectangle

    height, width = image.pixels.shape[1:]
    axes.imshow(image.pixels.permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
    for (x1, y1, x2, y2), crowd in zip(image.boxes.tolist(), image.crowd.tolist(), strict=True):
        color = "0.7" if crowd else "#00e5ff"
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=color, linewidth=1.0, fill=False))
    axes.set(xlim=(0, width), ylim=(height, 0))


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` and ``height`` inches, at most 40."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 40), min(height, 40)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], title: str) -> Path:
    """Write a figure with a title; returns the path."""
    figure.suptitle(title, fontsize=10)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
