"""The training loop. Its interface to a model is ``network(batch, progress) -> StepOutput``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from poise.detection_model.description import ModelDescription
from poise.engine import patience, schedule
from poise.engine.assignment_monitor import AssignmentMonitor
from poise.engine.checkpoints import BEST, FAILED, save_last
from poise.engine.fsdp import unsharded
from poise.engine.health import (
    SMALLEST_SCALE,
    OutOfMemory,
    Position,
    StepRecord,
    TrainingDiverged,
    explain,
    first_bad_gradient,
    is_out_of_memory,
    lost_process,
    memory_advice,
)
from poise.engine.logs import TrainingLog
from poise.engine.processes import Processes
from poise.engine.state import FORMAT, Checkpoint, Tensors, TrainingState
from poise.engine.step import Stepper
from poise.engine.stopping import TIME_LIMIT, StopRequest
from poise.models.files import ModelFile
from poise.recipes import Recipe
from poise.storage import save_atomically
from poise.structures import Batch
from poise.suggestions import clock, plural

TRAINING_BATCHES = 3  # that are drawn


class Loader(Protocol):
    """Batches as a pure function of the epoch and the batch to start from."""

    @property
    def batches_per_epoch(self) -> int: ...
    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]: ...


def metric_value(metrics: Mapping[str, float], name: str) -> float:
    """The metric that chooses ``best.pt``; -1 where it is undefined (no object of that kind in the data)."""
    value = metrics.get(name, float("nan"))
    return value if value == value else -1.0


@dataclass
class Training:
    """The training of one process."""

    state: TrainingState
    loader: Loader
    recipe: Recipe
    folder: Path
    processes: Processes
    log: TrainingLog
    model: ModelDescription  # rebuilds the model; stored with its weights
    validate: Callable[[], Mapping[str, float]] | None = None  # metrics of the network; called by all processes
    file_of: Callable[[int], str] = str  # file of an image by its index, for messages
    draw_batch: Callable[[Batch, int], None] | None = None  # called with the first batches of the run and their step
    monitor: AssignmentMonitor | None = None  # measures the assignment
    on_measured: Callable[[float], None] | None = None  # called once with the measured seconds of an epoch
    began: float = field(default_factory=time.monotonic)  # of the whole run, as if its parts followed each other

    def run(self) -> str | None:
        """Train to the end or to a signal, whose name is returned; a checkpoint is saved in both cases.

        Raises:
            TrainingDiverged: a loss or gradient was not finite; ``failed.pt`` is the state before that step.
            OutOfMemory: the message names the settings to lower.
        """
        self.log.open(self.recipe)
        if self.monitor is not None:
            self.monitor.open(self.state.position)
        with StopRequest() as stop:
            try:
                return self._epochs(stop)
            except RuntimeError as error:
                if lost := lost_process(error):
                    raise lost from error
                if not is_out_of_memory(error):
                    raise
                recipe = self.recipe
                size, settings = recipe.model.image_size, recipe.train
                advice = memory_advice(recipe.data.images_per_step, settings.accumulate, settings.precision, size)
                raise OutOfMemory(f"{self.processes.device}: {advice}") from error
            finally:
                self.log.close()

    def _epochs(self, stop: StopRequest) -> str | None:
        state, settings, plan = self.state, self.recipe.train, self.recipe.schedule
        stepper = Stepper(state, self.processes, settings)
        base = schedule.base_rate(self.recipe.optimizer, self.recipe.data.images_per_step)
        steps_per_epoch = self.steps_per_epoch
        saved = time.monotonic()
        self.began = saved - state.seconds

        for epoch in range(state.position.epoch, plan.epochs):
            end = self._ending()
            if epoch >= self.epochs:
                return None
            if self.processes.any(self._over_time())[0]:
                return self._time_is_over()
            state.network.train()
            all_steps = self.epochs * steps_per_epoch
            for batches in self._groups(epoch, state.position.batch, stop):
                if self.draw_batch is not None and state.position.step < TRAINING_BATCHES:
                    self.draw_batch(batches[0], state.position.step)
                state.rate = base * schedule.factor(plan, self.scheduled_step, steps_per_epoch)
                state.rate *= patience.decay(end, self.scheduled_step, steps_per_epoch)
                state.fraction = min(1.0, self.scheduled_step / all_steps)
                step = state.position.step + 1
                if self.monitor is not None:
                    stepper.observer = self.monitor.observer(step)
                self.log.add(stepper(batches))
                state.position = Position(step, epoch, state.position.batch + len(batches))
                if self.monitor is not None:
                    self.monitor.write(state.position, self.log.events)

                show = step % settings.log_every == 0
                late = settings.save_minutes > 0 and time.monotonic() - saved > 60 * settings.save_minutes
                due = settings.save_every > 0 and step % settings.save_every == 0
                stopping, late, over = self.processes.any(stop.signal is not None, late, self._over_time())
                if show or stopping or late or over or due or self.processes.device.type == "cpu":
                    self._check()
                if show:
                    self.log.show()
                    self._measure()
                if stopping or late or over or due:
                    self.save()
                    saved = time.monotonic()
                if stopping:
                    return self._stopped(stop)
                if over and self.state.position.batch < self.loader.batches_per_epoch:
                    return self._time_is_over()

            if self.processes.any(state.position.batch < self.loader.batches_per_epoch)[0]:
                self.save()  # the signal stopped the data workers as well
                return self._stopped(stop)
            self._check()
            self.log.show()
            self._measure()
            if self.monitor is not None:
                self.monitor.probe(state.position, self.log.events)
            metrics = self._validate(epoch + 1)
            state.position = Position(state.position.step, epoch + 1, 0)
            self.log.end_epoch(epoch + 1, state.position.step, metrics)
            self._keep_best(metrics, epoch + 1)
            self.save()
            saved = time.monotonic()
            if self.processes.any(stop.signal is not None)[0]:
                return self._stopped(stop) if epoch + 1 < self.epochs else None
        return None

    def _measure(self) -> None:
        """Show how long an epoch takes, once it is known."""
        if self.on_measured is None or not self.log.seconds_per_step:
            return
        seconds = self.log.seconds_per_step * self.steps_per_epoch
        rest = self.log.seconds_per_step * (self.log.steps - self.state.position.step)
        text = f"measured: an epoch takes {clock(seconds)}, the rest of the training {clock(rest)}, without validation"
        self.log.display.message(text)
        self.on_measured(seconds)
        self.on_measured = None

    def _ending(self) -> patience.Ending | None:
        """The end that ``train.patience`` has decided on, which the log shows from then on."""
        end = patience.ending(self.state.rows, self.recipe)
        if end is not None and self.state.position.epoch == end.start:
            why = "the limit is near" if end.still_rising else f"{self.recipe.evaluate.metric} has stopped rising"
            self.log.display.message(f"{why}: the rate falls linearly until epoch {end.epochs}")
        if patience.early_stop(self.state.rows, self.recipe) == self.state.position.epoch:
            best = f" (best epoch: {self.state.best[1]})" if self.state.best else ""
            waited = (
                f"{self.recipe.evaluate.metric} has not risen for {plural(self.recipe.train.early_stopping, 'epoch')}"
            )
            self.log.display.message(f"{waited}{best}: the training ends")
        remaining = self.epochs * self.steps_per_epoch - self.scheduled_step
        self.log.epochs, self.log.steps = self.epochs, self.state.position.step + remaining
        return end

    @property
    def scheduled_step(self) -> int:
        """The step of the learning rate's schedule: by the share of the training that is done."""
        position, accumulate = self.state.position, self.recipe.train.accumulate
        return schedule.scheduled_step(position.epoch, position.batch, self.steps_per_epoch, accumulate)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training: ``schedule.epochs``, or fewer by patience or early stopping."""
        return patience.last_epoch(self.state.rows, self.recipe)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one takes the remaining batches."""
        return -(-self.loader.batches_per_epoch // self.recipe.train.accumulate)

    def _over_time(self) -> bool:
        limit = self.recipe.train.max_minutes
        return limit > 0 and time.monotonic() - self.began > 60 * limit

    def _time_is_over(self) -> str:
        """End by ``train.max_minutes``; without a validation so far, the weights are validated and become ``best.pt``.

        They are not part of the checkpoint, so a resumed run goes on as if it had not been stopped.
        """
        if self.state.best is None:
            metrics = self.evaluate() if self.validate is not None else {}
            epoch = self.state.position.epoch + 1
            self.state.best = (metric_value(metrics, self.recipe.evaluate.metric), epoch)
            self._keep_model(BEST, metrics, epoch)
        return TIME_LIMIT

    def _groups(self, epoch: int, start_batch: int, stop: StopRequest) -> Iterator[list[Batch]]:
        """Iterate over the parts of each optimizer step, without changing the global random generators."""
        batches = iter(self.loader.epoch(epoch, start_batch))
        group: list[Batch] = []
        while True:
            try:
                with torch.random.fork_rng(devices=[]):
                    batch = next(batches, None)
            except RuntimeError:
                if stop.signal is not None:  # the signal also ended the data workers
                    return
                raise
            if batch is not None:
                group.append(batch)
            if group and (batch is None or len(group) == self.recipe.train.accumulate):
                yield group
                group = []
            if batch is None:
                return

    def _check(self) -> None:
        bad = self.log.read()
        if bad is not None:
            self._fail(bad)
        scaler = self.state.scaler
        if scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE:
            self._fail_scale(scaler.get_scale())

    def _fail(self, record: StepRecord) -> None:
        """Save the state before the bad step and raise an error that names the cause and the process."""
        parameter = first_bad_gradient(self.state.network) if self.processes.device.type == "cpu" else None
        files = [self.file_of(index) for index in record.images]
        accounts = self.processes.gather(explain(record, files, parameter))
        self.state.position = record.position
        self.save(FAILED)
        texts = [f"process {rank}: {text}" if len(accounts) > 1 else text for rank, (_, text) in enumerate(accounts)]
        causes = [text for text, (own_loss, _) in zip(texts, accounts, strict=True) if own_loss]
        text = "; ".join(causes or texts)  # a bad loss of one process makes the averaged gradient of all bad
        raise TrainingDiverged(
            f"{text}. The state before this step is saved in {FAILED}. Lower optimizer.lr, lengthen the warm-up or set "
            "train.clip_norm; poise check finds faulty images",
            self.folder / FAILED,
        )

    def _fail_scale(self, scale: float) -> None:
        """Raise after the loss scaler skipped every step while the scale fell; the weights have not changed since."""
        self.save(FAILED)
        step = self.state.position.step
        raise TrainingDiverged(
            f"fp16 gradients are not finite at step {step} nor at the steps before it, even with the loss times "
            f"{scale:.1e}. The state is saved in {FAILED}. train.precision bf16 has the range of fp32",
            self.folder / FAILED,
        )

    def _validate(self, epoch: int) -> Mapping[str, float]:
        settings, last = self.recipe.evaluate, epoch == self.epochs
        if self.validate is None or not (last or (settings.every and epoch % settings.every == 0)):
            return {}
        self.save()  # a run that is killed during validation does not repeat the epoch
        return self.evaluate()

    def evaluate(self) -> Mapping[str, float]:
        """Return the metrics of the EMA weights, or of the weights without an EMA; every process must call this."""
        assert self.validate is not None
        devices = [self.processes.device.index or 0] if self.processes.device.type == "cuda" else []
        ema = self.state.ema.applied() if self.state.ema is not None else nullcontext()
        with torch.random.fork_rng(devices=devices), ema, unsharded(self.state.network):
            return self.validate()

    def _keep_best(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Save ``best.pt`` if the metric improved; without validation the last weights are the best."""
        name = self.recipe.evaluate.metric
        if metrics and name not in metrics:
            raise ValueError(f"evaluate.metric='{name}' is none of {', '.join(metrics)}")
        value = metric_value(metrics, name)
        if (self.validate is None) or (metrics and (self.state.best is None or value > self.state.best[0])):
            self.state.best = (value, epoch)
            self._keep_model(BEST, metrics, epoch)
        every = self.recipe.train.keep_every
        if every and epoch % every == 0:
            self._keep_model(f"epoch-{epoch:04}.pt", metrics, epoch)

    def _keep_model(self, name: str, metrics: Mapping[str, float], epoch: int) -> None:
        """Write a model file; every process must call this."""
        tensors = self.state.tensors()
        if self.processes.first:
            numbers = {key: float(number) for key, number in metrics.items()}
            save_atomically(self.folder / name, {**self._model_file(tensors), "metrics": numbers, "epoch": epoch})

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint; every process must call this."""
        self.state.seconds = time.monotonic() - self.began
        per_process, tensors = self.state.per_process(self.processes), self.state.tensors()
        if self.processes.first:
            payload: Checkpoint = {
                **self._model_file(tensors),
                "training": self.state.payload(self.recipe, tensors, per_process),
            }
            if name is None:
                save_last(self.folder, payload, self.recipe.train.keep_previous)
            else:
                save_atomically(self.folder / name, payload)
        self.processes.barrier()

    def _model_file(self, tensors: Tensors) -> ModelFile:
        """Return the part of a checkpoint that ``poise.load`` reads; tensors shared with the state are stored once."""
        trained = tensors["ema"] or tensors["network"]
        weights = {f"network.{key}": value for key, value in trained.items()}
        return {"format": FORMAT, "model": self.model, "weights": weights}

    def _stopped(self, stop: StopRequest) -> str:
        signals = [name for name in self.processes.gather(stop.signal) if name]
        return signals[0] if signals else "SIGTERM"
