"""Losses and gradients that are not finite: stopped before they spoil a parameter, reported with their cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from poise.engine.fsdp import to_local

SMALLEST_SCALE = 1e-4  # of an fp16 loss: gradients that overflow even so do not come from its size
_BROKEN_EXCHANGE = (
    "Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe",
    "Timed out waiting", "Timeout waiting", "NCCL",
)  # fmt: skip


class TrainingDiverged(RuntimeError):
    """A loss or gradient was not finite; ``state_file`` holds everything as it was before that step."""

    def __init__(self, message: str, state_file: Path | None = None) -> None:
        super().__init__(message)
        self.state_file = state_file


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; the message names what to lower."""


class LostProcess(RuntimeError):
    """Another process of the run ended or no longer answers."""


@dataclass(frozen=True)
class Position:
    """Where in the training: optimizer steps done, epochs done, batches of the running epoch done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step left on the device, to be read later."""

    position: Position  # before the step
    names: tuple[str, ...]  # loss terms
    values: Tensor  # (len(names),) losses, averaged over accumulated parts
    healthy: Tensor  # scalar bool: this step and all before it were finite, in every process
    norm: Tensor  # scalar: L2 norm of the gradient before clipping
    nonfinite: Tensor  # scalar int64: places in this process's images whose predictions are not finite numbers
    objects: int  # objects in this process's images
    images: tuple[int, ...]  # indices in the data set of this process's images


class RunningStatistics:
    """The buffers of normalization layers that a forward pass changes, so that a bad step's can be taken back."""

    def __init__(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        self.layers = layers
        self._kept: list[tuple[Tensor, Tensor]] = []

    def remember(self) -> None:
        """Keep the present values of layers in training mode."""
        live = [buffer for layer in self.layers if layer.training for buffer in layer.buffers(recurse=False)]
        self._kept = [(buffer, buffer.clone()) for buffer in live]

    def restore_unless(self, healthy: Tensor) -> None:
        """Put the kept values back where the step was not healthy, without a read by the host."""
        for buffer, kept in self._kept:
            buffer.copy_(torch.where(healthy, buffer, kept))


def explain(record: StepRecord, files: list[str], parameter: str | None) -> tuple[bool, str]:
    """One process's account of the first step that was not finite, and whether a loss of its own was to blame."""
    values = dict(zip(record.names, record.values.tolist(), strict=True))
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    gradient = "the losses are finite but the gradient is not" + (f", first in {parameter}" if parameter else "")
    what = f"loss {', '.join(bad)}" if bad else gradient
    place = f"step {record.position.step + 1}, epoch {record.position.epoch + 1}, batch {record.position.batch + 1}"
    spoiled = f" (nonfinite_predictions {int(record.nonfinite)})" if int(record.nonfinite) else ""
    return bool(bad), f"{what} at {place}{spoiled}; images: {', '.join(files)}"


def first_bad_gradient(network: nn.Module) -> str | None:
    """Name of the first parameter whose gradient is not finite."""
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not bool(to_local(parameter.grad).isfinite().all()):
            return name
    return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's or the CPU's allocator gave up."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def lost_process(error: RuntimeError) -> LostProcess | None:
    """What to tell where an exchange with the other processes failed; None where the error is another."""
    sign = next((sign for sign in _BROKEN_EXCHANGE if sign in str(error)), None)
    if sign is None:
        return None
    return LostProcess(
        f"another process of this run has ended or no longer answers ({sign}). What that process said last is the "
        "cause; --resume goes on from the last checkpoint"
    )


def memory_advice(batch: int, accumulate: int, precision: str, image_size: tuple[int, ...]) -> str:
    """What to lower, with the present values."""
    advice = [f"data.batch_size (now {batch}) or raise train.accumulate (now {accumulate}; equal but for batch norms)"]
    advice.append(f"model.image_size (now {' x '.join(map(str, image_size)) or 'as published'})")
    if precision == "fp32":
        advice.append("train.precision to bf16")
    return "out of memory. Lower " + ", or ".join(advice)
