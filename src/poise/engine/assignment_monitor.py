"""Measure the assignment during training: every few steps, and after every epoch.

The measurement of a step reads the step's own outputs; nothing is computed twice. After an epoch the losses of a few
training images are computed without augmentation. Neither changes weights, buffers or random generators.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from poise.data import BadImage, ImageSet
from poise.data.loader import evaluation_loader
from poise.detection_model import DetectionModel
from poise.distributed import single_process
from poise.engine.health import Position
from poise.engine.loggers import Logger
from poise.engine.logs import to_csv
from poise.engine.meter import Row
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.engine.step import Observer
from poise.lab import NoLossWeights, explain_batch, explain_output
from poise.lab.churn import ProbePositives, churn, collect_positives, concatenate_positives, has_persistent_priors
from poise.lab.tally import Tally, add_tallies, summarize, tally
from poise.storage import write_text_atomically
from poise.structures import Batch, GroundTruth, StepOutput

TABLE = "lab.csv"


class LabTable:
    """``lab.csv``: a row for each stage and measurement; new columns are added when a stage needs them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []

    def open(self, step: int) -> None:
        """Keep the rows up to ``step``; a run that was killed may have written more, or half a line."""
        rows: list[Row] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
        self._rewrite([row for row in rows if int(row["step"]) <= step])

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        if not set().union(*rows) <= set(self.columns):
            with self.path.open(newline="", encoding="utf-8") as file:
                return self._rewrite([*csv.DictReader(file), *rows])
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerows(rows)

    def _rewrite(self, rows: Sequence[Row]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        write_text_atomically(self.path, to_csv(list(rows)))


class AssignmentMonitor:
    """Measures the assignment while a network trains.

    Args:
        every: steps between two measurements.
        images: number of training images that are measured after every epoch; 0: none.
    """

    def __init__(
        self,
        state: TrainingState,
        model: DetectionModel,
        train_set: ImageSet,
        folder: Path,
        *,
        processes: Processes,
        every: int,
        images: int,
    ) -> None:
        self.state, self.model, self.train_set, self.processes, self.every = state, model, train_set, processes, every
        count = min(images, len(train_set))
        self.images = [i * len(train_set) // count for i in range(count)]
        self.table = LabTable(folder / TABLE)
        self.sums: dict[str, Tally] = {}
        self.unsupported = ""  # why the model cannot be measured

    def open(self, position: Position) -> None:
        """Open the table; rows beyond the position, from a run that was killed, are dropped."""
        if self.processes.first:
            self.table.open(position.step)

    def observer(self, step: int) -> Observer | None:
        """Return the observer of step number ``step``, or None if it is not measured."""
        self.sums = {}
        return self._observe if step % self.every == 0 and not self.unsupported else None

    def _observe(self, output: StepOutput, truth: GroundTruth) -> None:
        try:
            with undisturbed(self.processes.device):
                stages = explain_output(output, truth, self.model.name).stages
                found = {name: tally(stage) for name, stage in stages.items()}
        except NoLossWeights as error:
            self.unsupported = str(error)
            return
        for name, sums in found.items():
            self.sums[name] = add_tallies([self.sums.get(name, {}), sums])

    def write(self, position: Position, events: Logger | None) -> None:
        """Write the measurement of the last step; every process must call this."""
        if position.step % self.every or self.unsupported:
            return
        gathered = self.processes.gather(self.sums)
        if self.processes.first:
            names = dict.fromkeys(name for one in gathered for name in one)
            sums = {name: add_tallies([one[name] for one in gathered if name in one]) for name in names}
            found = {name: summarize(one) for name, one in sums.items()}
            self._write(found, position, position.epoch + 1, "batch", events)

    def probe(self, position: Position, events: Logger | None) -> None:
        """Measure the probe's images after an epoch, in the first process."""
        if not (self.processes.first and self.images) or self.unsupported:
            return
        with undisturbed(self.processes.device), single_process(), evaluating(self.model):
            sums, now = self._measure_probe()
        lab = self.state.lab
        before = lab["positives"] if lab and lab["epoch"] == position.epoch else {}
        self.state.lab = {"epoch": position.epoch + 1, "positives": {name: one.rows for name, one in now.items()}}
        found = {name: summarize(one) for name, one in sums.items()}
        for name in found.keys() & before.keys():
            found[name] |= churn(before[name], now[name])
        self._write(found, position, position.epoch + 1, "probe", events)

    def _measure_probe(self) -> tuple[dict[str, Tally], dict[str, ProbePositives]]:
        sums: dict[str, Tally] = {}
        parts: dict[str, list[ProbePositives]] = {}
        for number, batch in enumerate(self._batches()):
            explained = explain_batch(self.model.network, batch, self.state.progress, name=self.model.name)
            for name, stage in explained.stages.items():
                sums[name] = add_tallies([sums.get(name, {}), tally(stage)])
                if has_persistent_priors(name, stage):
                    parts.setdefault(name, []).append(collect_positives(stage, number))
        return sums, {name: concatenate_positives(found) for name, found in parts.items()}

    def _batches(self) -> Iterator[Batch]:
        """Iterate over the probe's images one at a time; an unreadable image is left out."""
        for index in self.images:
            loader = evaluation_loader(self.train_set.subset([index]), self.model.preprocess, batch_size=1)
            try:
                batch = next(iter(loader))
            except BadImage:
                continue
            yield Batch(batch.pixels, batch.truth, batch.indices, proposals=batch.proposals).to(self.processes.device)

    def _write(
        self,
        found: Mapping[str, Mapping[str, float]],
        position: Position,
        epoch: int,
        source: str,
        events: Logger | None,
    ) -> None:
        rows = []
        for name, values in found.items():
            key_columns: Row = {"step": position.step, "epoch": epoch, "source": source, "stage": name}
            rows.append({**key_columns, **{key: float(f"{value:.6g}") for key, value in values.items()}})
            if events is not None:
                logged = {f"lab_{source}/{name}/{key}": float(value) for key, value in values.items()}
                events.scalars(logged, position.step)
        if rows:
            self.table.add(rows)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Restore the random generators on exit; allow nondeterministic algorithms on a GPU inside."""
    fixed, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(fixed and device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(fixed, warn_only=warn_only)


@contextmanager
def evaluating(model: DetectionModel) -> Iterator[None]:
    """Use evaluation mode inside the context, and the previous mode afterward."""
    training = model.network.training
    model.network.eval()
    try:
        yield
    finally:
        model.network.train(training)
