"""The figure of ``poise lab stats``: distribution of the supervision, for several methods."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.fonts import readable_name
from poise.lab.statistics import IOU_EDGES, LOG_WEIGHT_EDGES, SIZES, Supervision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 15  # in the figure, those with the largest weight


def draw_supervision(
    methods: Mapping[str, Supervision], path: str | os.PathLike[str], title: str = "", class_names: Sequence[str] = ()
) -> Path:
    """Draw six panels for the methods of one stage.

    Positives by size of the object, distribution of the weights, fraction of the positive weight by size and by class,
    objects without a positive, negatives by IoU.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    for draw, axes in zip((_positives, _weights, _sizes, _without, _negatives), panels.flat, strict=False):
        draw(axes, methods)
    _classes(panels.flat[-1], methods, class_names)
    for axes in panels.flat:
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _positives(axes: Axes, methods: Mapping[str, Supervision]) -> None:
    """Mean number of positives of objects in octaves of size."""
    edges = 2.0 ** np.arange(2, 11)
    for name, one in methods.items():
        objects = one.objects
        octave = np.digitize(objects["size"], edges)
        present = np.unique(octave)
        means = [objects["positives"][octave == i].mean() for i in present]
        axes.plot(edges[np.clip(present, 0, len(edges) - 1)], means, marker="o", markersize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("upper end of the range of object sizes, pixels")
    axes.set_ylabel("positives per object")


def _weights(axes: Axes, methods: Mapping[str, Supervision]) -> None:
    for name, one in methods.items():
        counts = one.histograms["positive"]
        line = axes.stairs(counts / max(counts.sum(), 1), LOG_WEIGHT_EDGES, label=name)
        negative = one.histograms["negative"]
        axes.stairs(negative / max(negative.sum(), 1), LOG_WEIGHT_EDGES, color=line.get_edgecolor(), linestyle=":")
    axes.set_xlabel("log10 of the positive weight (dotted: negative weight)")
    axes.set_ylabel("fraction of the priors with a weight > 0")


def _sizes(axes: Axes, methods: Mapping[str, Supervision]) -> None:
    groups = {name: one.to_dict()["by_size"] for name, one in methods.items()}
    values = {name: [100 * by_size[size]["weight_fraction"] for size in SIZES] for name, by_size in groups.items()}
    _bars(axes, list(SIZES), values, "fraction of the positive weight, %")


def _without(axes: Axes, methods: Mapping[str, Supervision]) -> None:
    groups = {name: one.to_dict()["by_size"] for name, one in methods.items()}
    values = {
        name: [100 * by_size[size]["without_positive"] / max(by_size[size]["objects"], 1) for size in SIZES]
        for name, by_size in groups.items()
    }
    _bars(axes, list(SIZES), values, "objects without a positive, %")


def _classes(axes: Axes, methods: Mapping[str, Supervision], class_names: Sequence[str]) -> None:
    groups = {name: one.to_dict(class_names)["by_class"] for name, one in methods.items()}
    first: Mapping[str, Any] = next(iter(groups.values()), {})
    largest = sorted(first, key=lambda name: -first[name]["weight_fraction"])[:MAX_CLASSES]
    values = {
        name: [100 * by_class.get(label, {}).get("weight_fraction", 0.0) for label in largest]
        for name, by_class in groups.items()
    }
    order = {name: i for i, name in enumerate(class_names)}
    labels = [readable_name(order.get(name, i), name) for i, name in enumerate(largest)]
    _bars(axes, labels, values, "fraction of the positive weight, %")
    for label in axes.get_xticklabels():
        label.set(rotation=50, ha="right", rotation_mode="anchor", fontsize=8)


def _bars(axes: Axes, groups: Sequence[str], values: Mapping[str, Sequence[float]], title: str) -> None:
    width = 0.8 / max(len(values), 1)
    for k, (name, heights) in enumerate(values.items()):
        axes.bar(np.arange(len(groups)) + k * width, heights, width, label=name)
    axes.set_xticks(np.arange(len(groups)) + 0.4 - width / 2, list(groups))
    axes.set_ylabel(title)


def _negatives(axes: Axes, methods: Mapping[str, Supervision]) -> None:
    for name, one in methods.items():
        weight = one.negatives[1]
        axes.stairs(100 * weight / max(weight.sum(), 1e-30), IOU_EDGES, label=name)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("highest IoU of a negative with an object")
    axes.set_ylabel("fraction of the negative weight, %")
