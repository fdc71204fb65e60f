"""Curves of losses and metrics of a run, from its ``results.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from poise.evaluate.loss_terms import MAX_TERMS, group_of
from poise.evaluate.panels import PathLike, panels, save

TIMES = ("step", "epoch", "time", "seconds", "date")  # columns that are not plotted
METRICS = {"ap": "average precision, %", "ar": "average recall, %"}  # titles of panels by prefix of the column


def read_history(path: PathLike) -> dict[str, list[float]]:
    """Columns of a ``results.csv``; empty and non-numeric cells are NaN.

    Raises:
        ValueError: no header.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not reader.fieldnames:
            raise ValueError(f"{path} is empty; a run writes its first row after its first logging interval")
        rows = list(reader)
    return {name.strip(): [_number(row.get(name)) for row in rows] for name in reader.fieldnames}


def plot_history(results: PathLike, path: PathLike) -> Path:
    """Plot every column of ``results.csv`` over the epoch (or step): panels of losses, metrics and the rest."""
    columns = _with_grouped_losses(read_history(results))
    time = next((name for name in ("epoch", "step") if name in columns), None)
    axis = columns[time] if time else list(range(len(next(iter(columns.values())))))
    groups = _groups(columns)
    figure, axes = panels(max(len(groups), 1))
    for ax, (title, names) in zip(axes, groups.items(), strict=False):
        for name in names:
            values = np.array(columns[name]) * (100 if title in METRICS.values() else 1)
            finite = np.isfinite(values)
            ax.plot(np.array(axis)[finite], values[finite], marker=".", ms=5, lw=1.4, label=name)
        ax.set(title=title, xlabel=time or "line", ylabel=title)
        if title in METRICS.values():
            ax.set_ylim(0, max(5, 105 * _largest(columns, names)))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    return save(figure, path)


def _groups(columns: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Columns by panel: losses, precision, recall, then one panel for each other column."""
    groups: dict[str, list[str]] = {title: [] for title in ("losses", *METRICS.values())}
    for name, values in columns.items():
        stem = name.rsplit("/", 1)[-1].lower()
        if stem in TIMES or not any(math.isfinite(value) for value in values):
            continue
        if "loss" in name.lower() or name.lower() == "total":
            groups["losses"].append(name)
        else:
            groups.setdefault(METRICS.get(stem[:2], name), []).append(name)
    return {title: names for title, names in groups.items() if names}


def _with_grouped_losses(columns: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Sum the loss terms of models with many of them by group (decoder, encoder, denoising, each auxiliary head)."""
    terms = [name for name in columns if "loss" in name.lower() and not name.endswith("total")]
    if len(terms) <= MAX_TERMS:
        return dict(columns)
    sums: dict[str, list[float]] = {}
    for name in terms:
        group = f"loss/{group_of(name)}"
        before = sums.get(group, [0.0] * len(columns[name]))
        sums[group] = [a + (0.0 if math.isnan(b) else b) for a, b in zip(before, columns[name], strict=True)]
    return {**{name: values for name, values in columns.items() if name not in terms}, **sums}


def _largest(columns: Mapping[str, Sequence[float]], names: Sequence[str]) -> float:
    return max(value for name in names for value in columns[name] if math.isfinite(value))


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan
