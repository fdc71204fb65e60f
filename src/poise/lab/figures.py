"""The figure of ``poise lab stats``: who gets the supervision, method beside method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poise.fonts import readable_name
from poise.lab.statistics import DECADES, SIZES, TENTHS, Supervision

MOST_CLASSES = 15  # in the figure, those with the greatest share


def draw_supervision(
    found: Mapping[str, Supervision], path: str | os.PathLike[str], title: str = "", names: Sequence[str] = ()
) -> Path:
    """Write six panels for the methods of one stage.

    Positives by size of the object, distribution of the weights, share of the supervision by size and by class,
    objects without a positive, negatives by IoU.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    for draw, axes in zip((_positives, _weights, _sizes, _without, _negatives), panels.flat, strict=False):
        draw(axes, found)
    _classes(panels.flat[-1], found, names)
    for axes in panels.flat:
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _positives(axes: Any, found: Mapping[str, Supervision]) -> None:
    """Mean number of positives of objects in octaves of size."""
    edges = 2.0 ** np.arange(2, 11)
    for name, one in found.items():
        objects = one.objects
        octave = np.digitize(objects["size"], edges)
        known = np.unique(octave)
        means = [objects["positives"][octave == i].mean() for i in known]
        axes.plot(edges[np.clip(known, 0, len(edges) - 1)], means, marker="o", markersize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("size of the object below, pixels")
    axes.set_ylabel("positives of an object")


def _weights(axes: Any, found: Mapping[str, Supervision]) -> None:
    for name, one in found.items():
        counts = one.histograms["positive"]
        line = axes.stairs(counts / max(counts.sum(), 1), DECADES, label=name)
        others = one.histograms["negative"]
        axes.stairs(others / max(others.sum(), 1), DECADES, color=line.get_edgecolor(), linestyle=":")
    axes.set_xlabel("logarithm (base 10) of the positive weight (broken: negative)")
    axes.set_ylabel("share of the places that have one")


def _sizes(axes: Any, found: Mapping[str, Supervision]) -> None:
    groups = {name: one.to_dict()["by_size"] for name, one in found.items()}
    shares = {name: [100 * of[size]["share_of_supervision"] for size in SIZES] for name, of in groups.items()}
    _bars(axes, list(SIZES), shares, "share of the positive weight, %")


def _without(axes: Any, found: Mapping[str, Supervision]) -> None:
    groups = {name: one.to_dict()["by_size"] for name, one in found.items()}
    shares = {
        name: [100 * of[size]["without_positive"] / max(of[size]["objects"], 1) for size in SIZES]
        for name, of in groups.items()
    }
    _bars(axes, list(SIZES), shares, "objects without a positive, %")


def _classes(axes: Any, found: Mapping[str, Supervision], names: Sequence[str]) -> None:
    groups = {name: one.to_dict(names)["by_class"] for name, one in found.items()}
    first: Mapping[str, Any] = next(iter(groups.values()), {})
    most = sorted(first, key=lambda name: -first[name]["share_of_supervision"])[:MOST_CLASSES]
    shares = {
        name: [100 * of.get(label, {}).get("share_of_supervision", 0.0) for label in most]
        for name, of in groups.items()
    }
    order = {name: i for i, name in enumerate(names)}
    labels = [readable_name(order.get(name, i), name) for i, name in enumerate(most)]
    _bars(axes, labels, shares, "share of the positive weight, %")
    for label in axes.get_xticklabels():
        label.set(rotation=50, ha="right", rotation_mode="anchor", fontsize=8)


def _bars(axes: Any, groups: Sequence[str], shares: Mapping[str, Sequence[float]], title: str) -> None:
    width = 0.8 / max(len(shares), 1)
    for k, (name, values) in enumerate(shares.items()):
        axes.bar(np.arange(len(groups)) + k * width, values, width, label=name)
    axes.set_xticks(np.arange(len(groups)) + 0.4 - width / 2, list(groups))
    axes.set_ylabel(title)


def _negatives(axes: Any, found: Mapping[str, Supervision]) -> None:
    for name, one in found.items():
        weight = one.negatives[1]
        axes.stairs(100 * weight / max(weight.sum(), 1e-30), TENTHS, label=name)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("IoU of a negative with the nearest object")
    axes.set_ylabel("share of the negatives' weight, %")
