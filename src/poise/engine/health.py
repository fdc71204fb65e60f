"""Detect losses and gradients that are not finite before they change a parameter, and report their cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from poise.engine.fsdp import to_local

SMALLEST_SCALE = 1e-4  # of the fp16 loss scaler: gradients that overflow below it are not finite for another reason
_BROKEN_EXCHANGE = (
    "Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe",
    "Timed out waiting", "Timeout waiting", "NCCL",
)  # fmt: skip


class TrainingDiverged(RuntimeError):
    """A loss or gradient was not finite; ``state_file`` is the checkpoint from before that step."""

    def __init__(self, message: str, state_file: Path | None = None) -> None:
        super().__init__(message)
        self.state_file = state_file


class OutOfMemory(RuntimeError):
    """The memory of the device did not suffice; the message names the settings to lower."""


class LostProcess(RuntimeError):
    """Another process of the run ended or does not respond."""


@dataclass(frozen=True)
class Position:
    """Position in the training: optimizer steps done, epochs done, batches of the current epoch done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class StepRecord:
    """Losses and counts of one optimizer step, on the device until they are read."""

    position: Position  # before the step
    names: tuple[str, ...]  # loss terms
    values: Tensor  # (len(names),) losses, averaged over accumulated parts
    healthy: Tensor  # scalar bool: this step and all before it were finite, in every process
    norm: Tensor  # scalar: L2 norm of the gradient before clipping
    nonfinite: Tensor  # scalar int64: priors or queries of this process with predictions that are not finite
    objects: int  # objects in this process's images
    images: tuple[int, ...]  # indices in the data set of this process's images


class RunningStatistics:
    """Running statistics of normalization layers, which can be restored after a step that is not finite."""

    def __init__(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        self.layers = layers
        self._saved: list[tuple[Tensor, Tensor]] = []

    def remember(self) -> None:
        """Save the values of the layers that are in training mode."""
        live = [buffer for layer in self.layers if layer.training for buffer in layer.buffers(recurse=False)]
        self._saved = [(buffer, buffer.clone()) for buffer in live]

    def restore_unless(self, healthy: Tensor) -> None:
        """Restore the saved values if the step was not healthy, without a host-device synchronization."""
        for buffer, saved in self._saved:
            buffer.copy_(torch.where(healthy, buffer, saved))


def explain(record: StepRecord, files: list[str], parameter: str | None) -> tuple[bool, str]:
    """Describe the first step that was not finite.

    Returns:
        Whether a loss of this process was not finite, and the description.
    """
    values = dict(zip(record.names, record.values.tolist(), strict=True))
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    gradient = "the losses are finite but the gradient is not" + (f", first in {parameter}" if parameter else "")
    cause = f"loss {', '.join(bad)}" if bad else gradient
    position = f"step {record.position.step + 1}, epoch {record.position.epoch + 1}, batch {record.position.batch + 1}"
    nonfinite = f" (nonfinite_predictions {int(record.nonfinite)})" if int(record.nonfinite) else ""
    return bool(bad), f"{cause} at {position}{nonfinite}; images: {', '.join(files)}"


def first_bad_gradient(network: nn.Module) -> str | None:
    """Return the name of the first parameter whose gradient is not finite."""
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not bool(to_local(parameter.grad).isfinite().all()):
            return name
    return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether the allocator of a device or of the CPU ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def lost_process(error: RuntimeError) -> LostProcess | None:
    """Return the error to raise if communication with another process failed, else None."""
    sign = next((sign for sign in _BROKEN_EXCHANGE if sign in str(error)), None)
    if sign is None:
        return None
    return LostProcess(
        f"another process of this run has ended or does not respond ({sign}). Its last message states the cause; "
        "--resume continues from the last checkpoint"
    )


def memory_advice(batch: int, accumulate: int, precision: str, image_size: tuple[int, ...]) -> str:
    """Return which settings to lower, with their current values."""
    advice = [f"data.batch_size (now {batch}) or raise train.accumulate (now {accumulate}; equal but for batch norms)"]
    advice.append(f"model.image_size (now {' x '.join(map(str, image_size)) or 'as published'})")
    if precision == "fp32":
        advice.append("train.precision to bf16")
    return "out of memory. Lower " + ", or ".join(advice)
