"""One optimizer step: forward, backward, clip, step and EMA, without host-device synchronization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from poise.engine.fsdp import average_replicated_gradients, clip_gradients, is_sharded, total_norm
from poise.engine.health import RunningStatistics, StepRecord
from poise.engine.optimize import set_rate
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.recipes import TrainSettings
from poise.structures import Batch, GroundTruth, Progress, StepOutput

Observer = Callable[[StepOutput, GroundTruth], None]
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """Takes optimizer steps on a state.

    If a loss or gradient is not finite in any process, this step and all later ones change nothing, until the records
    are read and the run ends. On the CPU the optimizer is skipped; on a GPU the fused optimizers receive a tensor
    (``found_inf``), so that no step synchronizes with the host.
    """

    def __init__(self, state: TrainingState, processes: Processes, settings: TrainSettings) -> None:
        self.state, self.processes, self.settings = state, processes, settings
        self.device = processes.device
        self.parameters = [p for p in state.network.parameters() if p.requires_grad]
        self.statistics = RunningStatistics(state.network)
        self.healthy = torch.ones((), dtype=torch.bool, device=self.device)
        self.parallel = self._parallel(state.network)
        self.observer: Observer | None = None  # called with the outputs of each part after its backward pass

    def __call__(self, batches: Sequence[Batch]) -> StepRecord:
        """Train on the parts of one batch, with averaged gradients, at the state's learning rate."""
        position, progress = self.state.position, self.state.progress
        set_rate(self.state.optimizer, self.state.rate)
        self.state.optimizer.zero_grad(set_to_none=True)
        self.statistics.remember()
        parts = [self._part(batch, progress, batches) for batch in batches]
        names, values = _mean_losses([losses for losses, _ in parts])
        nonfinite = torch.stack([count for _, count in parts]).sum()
        norm = self._clip()
        self._update_health(values, norm)
        self._step()
        objects = sum(int(batch.truth.valid.sum()) for batch in batches)
        images = tuple(index for batch in batches for index in batch.indices.tolist())
        return StepRecord(position, names, values, self.healthy, norm, nonfinite, objects, images)

    def _part(self, batch: Batch, progress: Progress, batches: Sequence[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses, and the number of priors or queries with predictions that are not finite."""
        moved = batch.to(self.device, non_blocking=True)
        if self.settings.channels_last:
            pixels = moved.pixels.contiguous(memory_format=torch.channels_last)
            moved = replace(moved, pixels=pixels)
        with self._without_sync(batch is not batches[-1]):
            with self._autocast():
                output: StepOutput = self.parallel(moved, progress)
                loss = output.total.float() / len(batches)
            loss = loss * torch.where(self.healthy, 1.0, float("nan"))  # no parameter changes after a bad step
            self.state.scaler.scale(loss).backward()
        if self.observer is not None:
            self.observer(output, moved.truth)
        return {name: value.detach().float() for name, value in output.losses.items()}, output.nonfinite

    def _clip(self) -> Tensor:
        """Return the L2 norm of the gradient, and clip the gradient if ``clip_norm`` is set."""
        self.state.scaler.unscale_(self.state.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if is_sharded(self.state.network):
            average_replicated_gradients(gradients)
            norm = total_norm(gradients)
            if self.settings.clip_norm:
                clip_gradients(gradients, self.settings.clip_norm, norm)
            return norm
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip_norm, norm)
        return norm

    def _update_health(self, values: Tensor, norm: Tensor) -> None:
        """Require finite losses, and a finite gradient unless a loss scaler adapts its scale."""
        finite = values.isfinite().all()
        if not self.state.scaler.is_enabled():
            finite = finite & norm.isfinite()
        self.healthy = self.healthy & self.processes.all_healthy(finite)
        self.statistics.restore_unless(self.healthy)

    def _step(self) -> None:
        optimizer, scaler = self.state.optimizer, self.state.scaler
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
        elif self.device.type == "cuda" and not is_sharded(self.state.network):
            optimizer.found_inf = (~self.healthy).float()  # type: ignore[attr-defined]
            optimizer.step()
        elif bool(self.healthy):
            optimizer.step()
        else:
            return
        if self.state.ema is not None:
            self.state.ema.update(self.state.position.step + 1, self.healthy)

    def _parallel(self, network: nn.Module) -> nn.Module:
        if self.settings.compile:
            network.compile()
        if self.processes.world_size == 1 or is_sharded(network):
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)

    def _without_sync(self, accumulating: bool) -> AbstractContextManager[None]:
        """Synchronize gradients between processes in the backward pass of the last part only."""
        if is_sharded(self.parallel):
            self.parallel.set_requires_gradient_sync(not accumulating)  # type: ignore[operator]
        if accumulating and isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[None]:
        precision = PRECISIONS.get(self.settings.precision)
        return torch.autocast(self.device.type, dtype=precision) if precision else nullcontext()


def _mean_losses(parts: Sequence[dict[str, Tensor]]) -> tuple[tuple[str, ...], Tensor]:
    """Return every loss term that occurs, averaged over the accumulated parts (0 in a part without it)."""
    names = tuple(dict.fromkeys(name for part in parts for name in part))
    zero = torch.zeros((), device=next(iter(parts[0].values())).device)
    sums = [torch.stack([part.get(name, zero) for part in parts]).sum() for name in names]
    return names, torch.stack(sums) / len(parts)
