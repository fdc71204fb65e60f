"""Where the numbers of a training go besides ``results.csv``: TensorBoard always, others where ``train.loggers`` asks.

A logger is opened by the first process only. A resumed run continues the run of the logger, whose id is stored in
``loggers.json`` in the run folder.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from poise.recipes import Recipe, to_dict
from poise.storage import write_text_atomically

IDS = "loggers.json"
PROJECT = "poise"  # of runs, unless the logger's own environment variable names another


class Logger(Protocol):
    """Takes numbers by name at a step."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log values at an optimizer step."""
        ...

    def flush(self) -> None:
        """Write what was logged."""
        ...

    def close(self) -> None:
        """End the logging; may be called twice."""
        ...


class MissingLogger(ImportError):
    """The package of a logger is not installed."""


class TensorBoardLogger:
    """Event files in ``tensorboard/``; entries beyond ``step``, from a run that was killed, are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases; ``WANDB_MODE=offline`` writes it to ``wandb/`` in the run folder only."""

    def __init__(self, folder: Path, recipe: Recipe, run_id: str) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        described = {"name": folder.resolve().name, "config": to_dict(recipe)}
        self.run: Any = wandb.init(project=project, id=run_id, resume="allow", dir=str(folder), **described)
        self.id = run_id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.run.finish()


class MlflowLogger:
    """A run of MLflow at ``MLFLOW_TRACKING_URI``, by default where MLflow stores its runs."""

    def __init__(self, folder: Path, recipe: Recipe, run_id: str) -> None:
        import mlflow

        self.client: Any = mlflow.MlflowClient()
        if run_id:
            self.id = run_id
            self.client.update_run(run_id, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name) if known is None else known.experiment_id
        self.id = self.client.create_run(experiment, run_name=folder.resolve().name).info.run_id
        for key, value in flat(to_dict(recipe)):
            self.client.log_param(self.id, key, str(value)[:500])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in values.items() if math.isfinite(value)]
        self.client.log_batch(self.id, metrics=metrics)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.client.set_terminated(self.id)


class TrackioLogger:
    """A run of Trackio, which stores runs on this machine."""

    def __init__(self, folder: Path, recipe: Recipe, run_id: str) -> None:
        import trackio

        self.trackio: Any = trackio
        name = f"{folder.resolve().name}-{run_id[:8]}"
        trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=name, config=to_dict(recipe), resume="allow"
        )
        self.id, self.open = run_id, True

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(values), step=step)

    def flush(self) -> None: ...

    def close(self) -> None:
        if self.open:
            self.trackio.finish()
        self.open = False


LOGGERS: dict[str, Callable[[Path, Recipe, str], Any]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
    "trackio": TrackioLogger,
}
"""Name, package and extra of each logger."""


class Loggers:
    """Several loggers as one."""

    def __init__(self, parts: Sequence[Logger]) -> None:
        self.parts = tuple(parts)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for part in self.parts:
            part.scalars(values, step)

    def flush(self) -> None:
        for part in self.parts:
            part.flush()

    def close(self) -> None:
        for part in self.parts:
            part.close()


def require_loggers(names: Sequence[str]) -> None:
    """Raise ``MissingLogger`` unless the packages of all loggers are installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingLogger(f"train.loggers: {name} is not installed; pip install 'poise[{name}]' installs it")


def open_loggers(recipe: Recipe, folder: Path, step: int) -> Loggers:
    """Open TensorBoard and the loggers of ``train.loggers`` for a run folder.

    Args:
        step: optimizer step at which the run starts or continues.
    """
    path = folder / IDS
    ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts: list[Logger] = [TensorBoardLogger(folder, step)]
    for name in recipe.train.loggers:
        new = "" if name == "mlflow" else uuid.uuid4().hex  # MLflow chooses its ids itself
        logger = LOGGERS[name](folder, recipe, ids.get(name, new))
        ids[name] = logger.id
        parts.append(logger)
    if recipe.train.loggers:
        write_text_atomically(path, json.dumps(ids, indent=1) + "\n")
    return Loggers(parts)


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Iterate over the entries of nested tables as ``group.name`` and value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _allowed(name: str) -> str:
    """``name`` with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
