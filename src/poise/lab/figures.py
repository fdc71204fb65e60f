"""The figure of ``poise lab stats``: who gets the supervision, method beside method."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from poise.lab.statistics import DECADES, SIZES, TENTHS, Supervision


def draw_supervision(found: Mapping[str, Supervision], path: str | os.PathLike[str], title: str = "") -> Path:
    """Write four panels for the methods of one stage: positives by size, weights, shares by size, negatives by IoU."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    for draw, axes in zip((_positives, _weights, _sizes, _negatives), panels.flat, strict=True):
        draw(axes, found)
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
        axes.stairs(counts / max(counts.sum(), 1), DECADES, label=name)
    axes.set_xlabel("logarithm (base 10) of the positive weight")
    axes.set_ylabel("share of the places that have one")


def _sizes(axes: Any, found: Mapping[str, Supervision]) -> None:
    width = 0.8 / max(len(found), 1)
    for k, (name, one) in enumerate(found.items()):
        groups = one.to_dict()["by_size"]
        shares = [100 * groups[size]["share_of_supervision"] for size in SIZES]
        axes.bar(np.arange(len(SIZES)) + k * width, shares, width, label=name)
    axes.set_xticks(np.arange(len(SIZES)) + 0.4 - width / 2, list(SIZES))
    axes.set_ylabel("share of the positive weight, %")


def _negatives(axes: Any, found: Mapping[str, Supervision]) -> None:
    for name, one in found.items():
        weight = one.negatives[1]
        axes.stairs(100 * weight / max(weight.sum(), 1e-30), TENTHS, label=name)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("IoU of a negative (its predicted box; of regions the proposal) with the nearest object")
    axes.set_ylabel("share of the negatives' weight, %")
