"""The lab during training: what the assignment did, every so many steps and after every epoch.

Steps are looked at as they were taken: nothing runs twice. After an epoch a few training images, without augmentation,
are judged by the network as it stands. Neither touches weights, buffers or random generators.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from poise.data import BadImage, ImageSet
from poise.data.loader import evaluation_loader
from poise.detectors import DetectionModel
from poise.distributed import single_process
from poise.engine.health import Position
from poise.engine.logs import to_csv
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.engine.step import Observer
from poise.lab import NoLossWeights, explain_batch, explain_output
from poise.lab.churn import ProbePositives, churn, collect_positives, concatenate_positives, has_persistent_priors
from poise.lab.tally import Tally, add_tallies, summarize, tally
from poise.storage import write_text_atomically
from poise.structures import Batch, GroundTruth, Progress, StepOutput

TABLE = "lab.csv"
Row = dict[str, Any]


class LabTable:
    """``lab.csv``: a row for each stage and look; columns are added where a stage has more to say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []

    def open(self, step: int) -> None:
        """Keep what was written up to ``step``; a killed run may have written more, or half a line."""
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
    """Looks on while a network trains.

    Args:
        every: steps between two looks.
        images: of the training set that are judged after every epoch; 0: none.
    """

    def __init__(
        self,
        state: TrainingState,
        model: DetectionModel,
        train_set: ImageSet,
        folder: Path,
        processes: Processes,
        every: int,
        images: int,
    ) -> None:
        self.state, self.model, self.train_set, self.processes, self.every = state, model, train_set, processes, every
        count = min(images, len(train_set))
        self.images = [i * len(train_set) // count for i in range(count)]
        self.table = LabTable(folder / TABLE)
        self.seen: dict[str, Tally] = {}
        self.silent = ""  # why nothing can be seen

    def open(self, position: Position) -> None:
        """Begin to write; what an earlier, killed run wrote beyond the position is dropped."""
        if self.processes.first:
            self.table.open(position.step)

    def observer(self, step: int) -> Observer | None:
        """What looks at the step that makes ``step`` steps; None where nobody does."""
        self.seen = {}
        return self._look if step % self.every == 0 and not self.silent else None

    def _look(self, output: StepOutput, truth: GroundTruth) -> None:
        try:
            with undisturbed(self.processes.device):
                stages = explain_output(output, truth, self.model.name).stages
                found = {name: tally(stage) for name, stage in stages.items()}
        except NoLossWeights as error:
            self.silent = str(error)
            return
        for name, sums in found.items():
            self.seen[name] = add_tallies([self.seen.get(name, {}), sums])

    def write(self, position: Position, events: SummaryWriter | None) -> None:
        """Write what was seen of the step just taken; every process must call this."""
        if position.step % self.every or self.silent:
            return
        shares = self.processes.gather(self.seen)
        if self.processes.first:
            names = dict.fromkeys(name for share in shares for name in share)
            sums = {name: add_tallies([share[name] for share in shares if name in share]) for name in names}
            found = {name: summarize(one) for name, one in sums.items()}
            self._write(found, position, position.epoch + 1, "batch", events)

    def probe(self, position: Position, events: SummaryWriter | None) -> None:
        """Judge the probe's images after an epoch; the first process does."""
        if not (self.processes.first and self.images) or self.silent:
            return
        with undisturbed(self.processes.device), single_process(), evaluating(self.model):
            sums, now = self._judge(position)
        before = self.state.lab if self.state.lab and self.state.lab["epoch"] == position.epoch else {"positives": {}}
        self.state.lab = {"epoch": position.epoch + 1, "positives": {name: one.rows for name, one in now.items()}}
        found = {name: summarize(one) for name, one in sums.items()}
        for name in found.keys() & before["positives"].keys():
            found[name] |= churn(before["positives"][name], now[name])
        self._write(found, position, position.epoch + 1, "probe", events)

    def _judge(self, position: Position) -> tuple[dict[str, Tally], dict[str, ProbePositives]]:
        sums: dict[str, Tally] = {}
        parts: dict[str, list[ProbePositives]] = {}
        progress = Progress(position.step, position.epoch)
        for number, batch in enumerate(self._batches()):
            for name, stage in explain_batch(self.model.network, batch, progress, name=self.model.name).stages.items():
                sums[name] = add_tallies([sums.get(name, {}), tally(stage)])
                if has_persistent_priors(name, stage):
                    parts.setdefault(name, []).append(collect_positives(stage, number))
        return sums, {name: concatenate_positives(found) for name, found in parts.items()}

    def _batches(self) -> Iterator[Batch]:
        """The probe's images one at a time; one that cannot be read is left out, as training does where it may."""
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
        events: SummaryWriter | None,
    ) -> None:
        rows = []
        for name, values in found.items():
            place = {"step": position.step, "epoch": epoch, "source": source, "stage": name}
            rows.append({**place, **{key: float(f"{value:.6g}") for key, value in values.items()}})
            for key, value in values.items() if events is not None else ():
                events.add_scalar(f"lab_{source}/{name}/{key}", value, position.step)  # type: ignore[union-attr]
        if rows:
            self.table.add(rows)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Random generators are put back; sums need not be taken in a fixed order."""
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
    """Evaluation mode, and then the mode of before."""
    training = model.network.training
    model.network.eval()
    try:
        yield
    finally:
        model.network.train(training)
