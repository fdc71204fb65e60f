"""State of a training: everything that changes and that a checkpoint stores."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from poise.engine.ema import ExponentialMovingAverage
from poise.engine.fsdp import apply_fsdp, distribute_all_like, distribute_optimizer_state, full_tensors, is_sharded
from poise.engine.health import Position
from poise.engine.meter import Meter, MeterState
from poise.engine.optimize import make_optimizer
from poise.engine.processes import Processes
from poise.engine.reproduce import RandomState, random_state, set_random_state
from poise.models.files import ModelFile
from poise.recipes import Recipe, to_dict
from poise.structures import Progress

FORMAT = "poise-1"


class ProcessState(TypedDict):
    """State that differs between processes."""

    random: RandomState
    meter: MeterState


class ProbeState(TypedDict):
    """The positives of the probe's images after an epoch, by stage."""

    epoch: int
    positives: dict[str, Tensor]


class Tensors(TypedDict):
    """Full tensors of network, EMA and optimizer."""

    network: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict[str, Any]  # of ``torch.optim.Optimizer.state_dict``


class _Payload(Tensors):
    scaler: dict[str, Any]  # of ``torch.amp.GradScaler.state_dict``
    rate: float
    step: int
    epoch: int
    batch: int
    batches_per_epoch: int | None
    best: list[float] | None  # metric and epoch
    rows: list[dict[str, float]]
    processes: list[ProcessState]
    recipe: dict[str, Any]


class TrainingPayload(_Payload, total=False):
    """The state of a training in a checkpoint."""

    seconds: float
    lab: ProbeState


class Checkpoint(ModelFile):
    """A file ``last.pt``, which is a model file as well."""

    training: TrainingPayload


class TrainingState:
    """Network, optimizer, EMA, loss scaler, position, best result and the rows of results.csv."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device) -> None:
        settings = recipe.train
        self.network = network
        if settings.fsdp:
            apply_fsdp(network, settings, device)
        self.optimizer = make_optimizer(network, recipe.optimizer, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.ema: ExponentialMovingAverage | None = None
        if settings.ema_decay:
            ramp = settings.ema_ramp, settings.ema_ramp_steps
            self.ema = ExponentialMovingAverage(network, settings.ema_decay, *ramp)
        self.position = Position()
        self.batches_per_epoch: int | None = None  # to which the position refers; None at the start
        self.rate = 0.0  # learning rate of the last step
        self.fraction = 0.0  # of the training that was done before the last step
        self.seconds = 0.0  # of training and validation so far
        self.best: tuple[float, int] | None = None  # metric and epoch, counted from 1
        self.rows: list[dict[str, float]] = []  # of results.csv
        self.meter = Meter()  # of the current epoch
        self.lab: ProbeState | None = None  # the assignment of the last epoch, with which the next one is compared

    @property
    def progress(self) -> Progress:
        """Progress at the present position."""
        return Progress(self.position.step, self.position.epoch, self.fraction)

    def tensors(self) -> Tensors:
        """Return the full tensors of network, EMA (or None) and optimizer; every process must call this."""
        ema = self.ema.values if self.ema is not None else None
        tensors: Tensors = {"network": self.network.state_dict(), "ema": ema, "optimizer": self.optimizer.state_dict()}
        return full_tensors(tensors) if is_sharded(self.network) else tensors

    def payload(self, recipe: Recipe, tensors: Tensors, per_process: list[ProcessState]) -> TrainingPayload:
        """Return the state as plain data and tensors, from the results of :meth:`tensors` and :meth:`per_process`."""
        payload: TrainingPayload = {
            "network": tensors["network"],
            "ema": tensors["ema"],
            "optimizer": tensors["optimizer"],
            "scaler": self.scaler.state_dict(),
            "rate": self.rate,
            "seconds": self.seconds,
            "step": self.position.step,
            "epoch": self.position.epoch,
            "batch": self.position.batch,
            "batches_per_epoch": self.batches_per_epoch,
            "best": list(self.best) if self.best is not None else None,
            "rows": self.rows,
            "processes": per_process,
            "recipe": to_dict(recipe),
        }
        if self.lab is not None:
            payload["lab"] = self.lab
        return payload

    def restore(self, payload: TrainingPayload, processes: Processes) -> list[str]:
        """Restore a payload; return notes for the user."""
        own = self.network.state_dict()
        self.network.load_state_dict(distribute_all_like(payload["network"], own))
        if self.ema is not None:
            self.ema.load(distribute_all_like(payload["ema"] or payload["network"], own))
        fused = [group.get("fused") for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(distribute_optimizer_state(payload["optimizer"], self.optimizer))
        for group, here in zip(self.optimizer.param_groups, fused, strict=True):
            group["fused"] = here  # as for this device, not for the one of the checkpoint
        if self.scaler.is_enabled() and payload["scaler"]:
            self.scaler.load_state_dict(payload["scaler"])
        self.position = Position(payload["step"], payload["epoch"], payload["batch"])
        self.batches_per_epoch = payload["batches_per_epoch"]
        self.rate = payload["rate"]
        self.seconds = payload.get("seconds", 0.0)
        self.best = (payload["best"][0], int(payload["best"][1])) if payload["best"] else None
        self.rows = list(payload["rows"])
        self.lab = payload.get("lab")
        stored = payload["processes"]
        if len(stored) != processes.world_size:
            return [f"{len(stored)} processes before, {processes.world_size} now: random generators are seeded anew"]
        self.meter = Meter.restored(stored[processes.rank]["meter"])
        set_random_state(stored[processes.rank]["random"], processes.device)
        return []

    def align(self, batches_per_epoch: int, accumulate: int) -> list[str]:
        """Convert the position to another number of batches per epoch.

        The same fraction of the current epoch counts as done, rounded down to full optimizer steps. Returns notes for
        the user.
        """
        before, self.batches_per_epoch = self.batches_per_epoch, batches_per_epoch
        if before is None or before == batches_per_epoch:
            return []
        done = self.position.batch * batches_per_epoch // before // accumulate * accumulate
        self.position = Position(self.position.step, self.position.epoch, done)
        return [
            f"{before} batches per epoch before, {batches_per_epoch} now: the learning rate continues from the same "
            "fraction of the training"
        ]

    def per_process(self, processes: Processes) -> list[ProcessState]:
        """Return the state that differs between processes: random generators, and sums of the current epoch."""
        return processes.gather({"random": random_state(processes.device), "meter": self.meter.payload()})
