"""Train after a recipe: build model, data and state, train, and write a run folder with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from poise.data import ImageSet
from poise.data.joining import Paths, as_paths
from poise.data.loader import train_loader
from poise.detection_model import DetectionModel
from poise.engine.assignment_monitor import AssignmentMonitor
from poise.engine.batch_size import choose_batch_size
from poise.engine.checkpoints import BEST, LAST, PREVIOUS, drop_previous, read_last
from poise.engine.display import make_display
from poise.engine.locks import FolderInUse, locked
from poise.engine.loggers import require_loggers
from poise.engine.logs import TrainingLog
from poise.engine.model import build_model
from poise.engine.pictures import draw_training_batch
from poise.engine.plan import make_plan
from poise.engine.processes import Processes, process_group
from poise.engine.reproduce import deterministic, seed_all
from poise.engine.restarts import note_launch, was_restarted
from poise.engine.sources import open_sets
from poise.engine.startup import greet
from poise.engine.state import Checkpoint, TrainingState
from poise.engine.stopping import EXIT_CODES
from poise.engine.train import Training
from poise.engine.validation import Validation, draw_run, write_record
from poise.models.files import describe, require_packages
from poise.nn.kernels.bfloat16 import convert_slow_layers
from poise.recipes import Recipe, differences, save_recipe
from poise.storage import write_text_atomically

RECIPE, CLASSES = "recipe.yaml", "classes.txt"


@dataclass(frozen=True)
class RunResult:
    """Result of a run."""

    out: Path
    metrics: dict[str, float]  # of the best epoch; empty without validation
    best_epoch: int | None  # counted from 1
    epochs: int  # done
    stopped_by: str | None = None  # the signal that stopped it, or train.max_minutes; --resume continues

    @property
    def finished(self) -> bool:
        return self.stopped_by is None

    @property
    def exit_code(self) -> int:
        """0 if finished or out of time, 143 after SIGTERM, 130 after SIGINT (128 + number of the signal)."""
        return 0 if self.stopped_by is None else EXIT_CODES[self.stopped_by]

    @property
    def best(self) -> Path:
        return self.out / BEST

    @property
    def last(self) -> Path:
        return self.out / LAST


def train(
    recipe: Recipe,
    *,
    data: Paths | None = None,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    progress_display: str = "auto",
    model: DetectionModel | None = None,
) -> RunResult:
    """Train after a recipe and write everything to a run folder.

    Args:
        recipe: the settings of the training, such as ``poise.recipes.get_recipe(name)``.
        data: the data set's folder or file, or several; by default ``recipe.data.path``.
        out: the run folder.
        resume: continue from the folder's last checkpoint, exactly; without a checkpoint start from the beginning.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        progress_display: ``auto`` (live in a terminal, else plain lines), ``live``, ``plain`` or ``none``.
        model: train a copy of this model, with its weights and parts, instead of building the one that the recipe
            names. Its number of classes must be that of the data.

    Under ``torchrun`` every process calls this with the same arguments; rank 0 writes.

    Raises:
        ValueError: the recipe does not fit the data, or the folder has another run (``FolderInUse`` if it is active).
        TrainingDiverged: a loss was not finite.
        OutOfMemory: the message names the settings to lower.
        MissingLogger: a logger's package is not installed; the message names the extra.
    """
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, path=tuple(map(str, as_paths(data)))))
    require_loggers(recipe.train.loggers)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a run needs a folder")
    with (
        process_group(device, recipe.train.timeout_minutes) as processes,
        _locked(folder, processes),
        deterministic(recipe.train.deterministic or processes.device.type == "cpu"),
    ):
        return _train(recipe, folder, _resumes(folder, resume, processes), processes, progress_display, model)


def _train(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    processes: Processes,
    progress_display: str,
    given: DetectionModel | None,
) -> RunResult:
    checkpoint, notes = _checkpoint(folder) if resume else (None, [])
    if checkpoint is not None:
        require_packages(checkpoint["model"], folder / LAST)
        if not recipe.data.classes and (class_map := checkpoint["model"].get("class_map")):
            recipe = replace(recipe, data=replace(recipe.data, classes=class_map))
    train_set, val_set, remarks = open_sets(recipe.data)
    seed_all(recipe.train.seed, 0)  # the same model in every process
    model, loaded = build_model(recipe, train_set, fresh=checkpoint is None, given=given)
    model.check_proposals(train_set.proposals is not None)
    if recipe.data.batch_size == "auto":
        before = None if checkpoint is None else checkpoint["training"]["recipe"]["data"]["batch_size"]
        batch_size, note = choose_batch_size(recipe, model, train_set, processes, before=before)
        recipe = replace(recipe, data=replace(recipe.data, batch_size=batch_size))
        remarks.append(note)
    seed_all(recipe.train.seed, processes.rank)
    if recipe.train.sync_batch_norm and processes.world_size > 1 and processes.device.type == "cuda":
        model.network = nn.SyncBatchNorm.convert_sync_batchnorm(model.network)
    model.to(processes.device)
    if recipe.train.channels_last:
        model.network.to(memory_format=torch.channels_last)
    if recipe.train.precision == "bf16" and processes.device.type == "cpu":
        convert_slow_layers(model.network)
    state = TrainingState(model.network, recipe, processes.device)
    if checkpoint is not None:
        notes += state.restore(checkpoint["training"], processes) + _changes(checkpoint["training"]["recipe"], recipe)
    if processes.first:
        save_recipe(recipe, folder / RECIPE)
        write_text_atomically(folder / CLASSES, "".join(f"{name}\n" for name in model.class_names))
        notes += write_record(folder, recipe, processes, train_set, val_set=val_set)

    training = _training(recipe, folder, processes, state, model, train_set, progress_display)
    notes += state.align(training.loader.batches_per_epoch, recipe.train.accumulate)
    validation = Validation(model, val_set, recipe, processes, best=state.best) if val_set is not None else None
    training.validate = validation
    plan = make_plan(recipe, model, train_set, val_set, processes=processes, remarks=remarks)
    if processes.first:
        plan.write(folder)
        training.on_measured = lambda seconds: plan.measured(seconds).write(folder)
    greet(training, plan, [*loaded, *notes])
    stopped = training.run()
    if validation is not None and validation.best is None and stopped is None:
        validation.evaluate_file(folder / BEST)  # resumed after the best epoch
    if processes.first:
        draw_run(training, validation)
        if stopped is None:
            drop_previous(folder)
    return _result(folder, training, stopped)


def _training(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    state: TrainingState,
    model: DetectionModel,
    train_set: ImageSet,
    progress_display: str,
) -> Training:
    if recipe.data.images_per_step % recipe.train.accumulate:
        raise ValueError(
            f"data.batch_size={recipe.data.batch_size} is not a multiple of train.accumulate={recipe.train.accumulate}"
        )
    loader = train_loader(
        train_set,
        recipe.augment,
        model.preprocess,
        batch_size=recipe.data.images_per_step // recipe.train.accumulate,
        seed=recipe.train.seed,
        workers=recipe.data.workers,
        rank=processes.rank,
        world_size=processes.world_size,
        group_by_aspect=recipe.data.group_by_aspect,
        drop_last=recipe.data.drop_last,
        on_bad_image=recipe.data.on_bad_data,
        epochs=recipe.schedule.epochs,
    )
    steps = -(-loader.batches_per_epoch // recipe.train.accumulate) * recipe.schedule.epochs
    display = make_display(progress_display, steps, processes.first, recipe.schedule.epochs)
    log = TrainingLog(state, folder, processes, display, steps=steps, epochs=recipe.schedule.epochs)
    training = Training(state, loader, recipe, folder, processes, log, describe(model))
    training.file_of = lambda index: str(train_set[index].path)
    if recipe.train.lab_every:
        every, images = recipe.train.lab_every, recipe.train.lab_images
        training.monitor = AssignmentMonitor(
            state, model, train_set, folder, processes=processes, every=every, images=images
        )
    if processes.first:
        training.draw_batch = lambda batch, step: draw_training_batch(batch, model, folder / f"train_batch_{step}.jpg")
    return training


def _checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    try:
        return read_last(folder)
    except FileNotFoundError:
        return None, [f"no checkpoint in {folder} yet: starting from the beginning"]


def _changes(before: Mapping[str, object], recipe: Recipe) -> list[str]:
    """Describe the settings that differ from those of the checkpoint."""
    lines = [f"{setting}: {old} -> {new}" for setting, old, new in differences(before, recipe)]
    return ["changed since the checkpoint: " + ", ".join(lines)] if lines else []


def _result(folder: Path, training: Training, stopped: str | None) -> RunResult:
    state = training.state
    epoch = state.best[1] if state.best is not None else None
    row = next((row for row in state.rows if row["epoch"] == epoch), {})
    metrics = {name.removeprefix("val/"): value for name, value in row.items() if name.startswith("val/")}
    return RunResult(folder, metrics, epoch, state.position.epoch, stopped)


def _resumes(folder: Path, resume: bool, processes: Processes) -> bool:
    """Return whether to continue from a checkpoint: on request, or because torchrun restarted this run."""
    used = any((folder / name).exists() for name in (LAST, PREVIOUS, BEST))
    used, again = processes.gather((used, was_restarted(folder)))[0]
    if used and not (resume or again):
        raise ValueError(f"{folder} already has a run: --resume continues it, another --out starts a new one")
    if processes.first:
        note_launch(folder)
    return resume or again


@contextmanager
def _locked(folder: Path, processes: Processes) -> Iterator[None]:
    """Lock the folder in the first process; all processes raise if it is in use."""
    lock = locked(folder)
    refusal = None
    if processes.first:
        try:
            lock.__enter__()
        except FolderInUse as error:
            refusal = str(error)
        except OSError as error:
            refusal = f"{error.filename}: {error.strerror}"
    refused = [text for text in processes.gather(refusal) if text]
    if refused:
        raise FolderInUse(refused[0])
    try:
        yield
    finally:
        if processes.first:
            lock.__exit__(None, None, None)
