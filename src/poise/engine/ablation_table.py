"""The table of an ablation, from the ``results.csv`` of its runs."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poise.engine.logs import to_csv
from poise.engine.patience import ending
from poise.recipes import Recipe
from poise.storage import write_text_atomically

if TYPE_CHECKING:
    from poise.engine.meter import Row

METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}


@dataclass(frozen=True)
class RunNumbers:
    """A finished run: its metrics after the last epoch (not the best one) and the mean time of a training step."""

    metrics: Mapping[str, float]  # in [0,1]; NaN where undefined
    seconds_per_step: float
    epochs: int


def finished_run(folder: Path, recipe: Recipe) -> RunNumbers | None:
    """Read the numbers of a run folder; None if its last epoch or its validation is not done."""
    path = folder / "results.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    end = ending(rows, recipe)
    epochs = recipe.schedule.epochs if end is None else end.epochs
    if not rows or int(rows[-1]["epoch"]) < epochs or not rows[-1].get("val/ap"):
        return None
    metrics = {name.removeprefix("val/"): float(text) for name, text in rows[-1].items() if name.startswith("val/")}
    seconds = sum(float(row["seconds"]) for row in rows) / max(int(rows[-1]["step"]), 1)
    return RunNumbers(metrics, seconds, int(rows[-1]["epoch"]))


def write_tables(
    folder: Path, variants: Sequence[str], runs: Mapping[tuple[str, int], RunNumbers]
) -> tuple[Path, Path]:
    """Write ``table.md`` and ``table.csv`` (mean and deviation per variant) and ``runs.csv`` (a row per run).

    Args:
        variants: the rows, in order; those without a finished run are empty.
        runs: numbers of the finished runs by (variant, seed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_variant = {name: [numbers for (variant, _), numbers in runs.items() if variant == name] for name in variants}
    write_text_atomically(folder / "table.md", markdown(by_variant))
    write_text_atomically(folder / "table.csv", to_csv([_row(name, done) for name, done in by_variant.items()]))
    each: list[Row] = [
        {"variant": variant, "seed": seed, **numbers.metrics, "seconds_per_step": round(numbers.seconds_per_step, 4)}
        for (variant, seed), numbers in runs.items()
    ]
    write_text_atomically(folder / "runs.csv", to_csv(each))
    return folder / "table.md", folder / "table.csv"


def markdown(by_variant: Mapping[str, Sequence[RunNumbers]]) -> str:
    """Format AP in percent, ``mean ± sample standard deviation`` of several runs; ``-`` where undefined."""
    lines = [f"| variant | {' | '.join(TITLES.values())} | s/step | runs |", "|---" + "|---:" * 8 + "|"]
    for name, runs in by_variant.items():
        cells = [_cell([100 * run.metrics.get(metric, math.nan) for run in runs], 1) for metric in METRICS]
        seconds = _cell([run.seconds_per_step for run in runs], 2)
        lines.append(f"| {name.replace('|', '/')} | {' | '.join(cells)} | {seconds} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def _row(name: str, runs: Sequence[RunNumbers]) -> Row:
    row: dict[str, float | str] = {"variant": name, "runs": len(runs)}
    for metric in METRICS:
        mean, deviation = _mean_and_deviation([run.metrics.get(metric, math.nan) for run in runs])
        row |= {metric: mean, f"{metric}_std": deviation}
    row["seconds_per_step"] = _mean_and_deviation([run.seconds_per_step for run in runs])[0]
    return row


def _mean_and_deviation(values: Sequence[float]) -> tuple[float | str, float | str]:
    """Return mean and sample standard deviation, rounded; empty where undefined."""
    if not values or any(math.isnan(value) for value in values):
        return "", ""
    return round(statistics.mean(values), 5), round(statistics.stdev(values), 5) if len(values) > 1 else ""


def _cell(values: Sequence[float], digits: int) -> str:
    if not values or any(math.isnan(value) for value in values):
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
