"""Collect losses on the device, read them once per interval, and write results.csv, loggers and the display."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from poise.engine.display import Display, Status
from poise.engine.health import StepRecord
from poise.engine.loggers import Logger, open_loggers
from poise.engine.meter import Meter, Row
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.evaluate.metrics import percent
from poise.recipes import Recipe
from poise.storage import write_text_atomically


class TrainingLog:
    """Collects the records of steps and reports their means."""

    def __init__(
        self, state: TrainingState, folder: Path, processes: Processes, display: Display, *, steps: int, epochs: int
    ) -> None:
        self.state, self.folder, self.processes, self.display = state, folder, processes, display
        self.steps, self.epochs = steps, epochs
        self.pending: list[StepRecord] = []
        self.interval = Meter()
        self.last = state.position
        self.intervals, self.seconds_per_step = 0, 0.0
        self.events: Logger | None = None  # of the first process

    def open(self, recipe: Recipe) -> None:
        """Open the files; entries beyond the state's step, from a run that was killed, are dropped."""
        self.interval = Meter()
        if self.processes.first:
            self.events = open_loggers(recipe, self.folder, self.state.position.step)
            self._write_rows()

    def add(self, record: StepRecord) -> None:
        """Store the record of a step without reading it from the device."""
        self.pending.append(record)
        self.display.step(record.position.step + 1)

    def read(self) -> StepRecord | None:
        """Read all stored records from the device; return the first that was not healthy."""
        for record in self.pending:
            if not bool(record.healthy):
                self.pending = []
                return record
            values = record.values.tolist()
            self.interval.add(record, values)
            self.state.meter.add(record, values)
        if self.pending:
            self.last = self.pending[-1].position
        self.pending = []
        return None

    def show(self) -> None:
        """Show and log the means since the last call; every process must call this."""
        if not self.interval.steps:
            return
        means = self.interval.means(self.processes)
        seconds = max(means.seconds, 1e-9)
        self._time_step(seconds / means.steps)
        done = self.last.step + 1
        status = Status(
            epoch=self.last.epoch + 1,
            epochs=self.epochs,
            step=done,
            steps=self.steps,
            rate=self.state.rate,
            images_per_second=means.images / seconds,
            seconds_left=(self.steps - done) * self.seconds_per_step,
            losses=means.sums,
            objects=means.objects / means.steps,
            memory=memory_used(self.processes.device),
            nonfinite=means.nonfinite,
        )
        self.display.status(status)
        if self.events is not None:
            values = {f"loss/{name}": value for name, value in means.sums.items()}
            values |= {"loss/total": sum(means.sums.values()), "train/lr": self.state.rate}
            values["train/images_per_second"] = status.images_per_second
            if means.nonfinite:
                values["train/nonfinite_predictions"] = means.nonfinite
            self.events.scalars(values, done)
        self.interval = Meter()

    def _time_step(self, seconds: float) -> None:
        """Update the running mean of the time of a step: the plain mean of the first ten intervals, then an EMA."""
        self.intervals += 1
        self.seconds_per_step += (seconds - self.seconds_per_step) / min(self.intervals, 10)

    def end_epoch(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row to results.csv; ``epoch`` counts from 1."""
        means = self.state.meter.means(self.processes)
        self.state.meter, self.interval = Meter(), Meter()
        row: dict[str, float] = {"epoch": epoch, "step": step, "lr": self.state.rate}
        row["seconds"] = round(means.seconds, 3)
        row["memory_mb"] = round(memory_used(self.processes.device), 1)
        row["objects_per_batch"] = means.objects / max(means.steps, 1)
        if means.nonfinite:
            row["nonfinite_predictions"] = means.nonfinite
        row["loss/total"] = sum(means.sums.values())
        row |= {f"loss/{name}": value for name, value in means.sums.items()}
        row |= {f"val/{name}": float(value) for name, value in metrics.items()}
        self.state.rows.append(row)
        self.display.message(summary(row, self.epochs))
        if self.events is not None:
            self.events.scalars({f"val/{name}": float(value) for name, value in metrics.items()}, step)
            self.events.flush()
            self._write_rows()

    def close(self) -> None:
        self.display.close()
        if self.events is not None:
            self.events.close()

    def _write_rows(self) -> None:
        write_text_atomically(self.folder / "results.csv", to_csv(self.state.rows))


def summary(row: Mapping[str, float], epochs: int) -> str:
    """Summarize a finished epoch in one line; metrics are in percent."""
    text = f"epoch {row['epoch']}/{epochs} done in {row['seconds']:.0f} s  loss {row['loss/total']:.3f}"
    metrics = [
        f"{name.removeprefix('val/')} {percent(value)}" for name, value in row.items() if name.startswith("val/")
    ]
    return text + ("  validation: " + "  ".join(metrics[:6]) if metrics else "")


def to_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV with a column for every name that occurs; missing values are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def memory_used(device: torch.device) -> float:
    """Return the peak memory in MB: of tensors on the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if os.name == "nt":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
