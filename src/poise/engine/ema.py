"""Exponential moving average (EMA) of a network's parameters and buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from poise.engine.fsdp import to_local


def decay_at(step: int, decay: float, ramp: str = "exponential", ramp_steps: float = 2000.0) -> float:
    """Return the weight of the old average after ``step`` optimizer steps.

    ``exponential``: decay (1 - exp(-(1 + step) / ramp_steps)), which is NanoDet's and YOLOX's
    m = decay' exp(-(1 + step) / 2000) + (1 - decay') for the weight of the new value.
    ``ratio``: min(decay, (1 + step) / (10 + step)). ``none``: decay.
    """
    if ramp == "exponential":
        return decay * (1 - math.exp(-(1 + step) / ramp_steps))
    return min(decay, (1 + step) / (10 + step)) if ramp == "ratio" else decay


class ExponentialMovingAverage:
    """Averages of a network's state, stored in addition to the network.

    Integer buffers are copied. Values that are not finite do not change the average.
    """

    def __init__(self, network: nn.Module, decay: float, ramp: str = "exponential", ramp_steps: float = 2000.0) -> None:
        self.network = network
        self.decay, self.ramp, self.ramp_steps = decay, ramp, ramp_steps
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int, healthy: Tensor | bool = True) -> None:
        """Include the network's values after ``step`` optimizer steps, unless the last step was not ``healthy``."""
        weight = 1 - decay_at(step, self.decay, self.ramp, self.ramp_steps)
        pairs = [(to_local(self.values[name]), to_local(new)) for name, new in self.network.state_dict().items()]
        if all(old.device.type == "cpu" for old, _ in pairs) and healthy:  # a CPU reads values without waiting
            pairs = _average_finite(pairs, weight)
        for old, new in pairs:
            mixed = old.lerp(new.to(old.dtype), weight) if old.is_floating_point() else new
            old.copy_(torch.where(new.isfinite() & healthy, mixed, old))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Copy the averages into the network; on exit restore its own values bit by bit."""
        own = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self._write(self.values)
        try:
            yield
        finally:
            self._write(own)

    def load(self, values: dict[str, Tensor]) -> None:
        """Replace the averages by stored ones."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in self.network.state_dict().items():
            value.copy_(values[name])


def _average_finite(pairs: list[tuple[Tensor, Tensor]], weight: float) -> list[tuple[Tensor, Tensor]]:
    """Move the averages of floating-point tensors in place if all values are finite; return the pairs left to do."""
    floats = [(old, new) for old, new in pairs if old.is_floating_point() and old.dtype == new.dtype and new.numel()]
    averages, values = [old for old, _ in floats], [new for _, new in floats]
    if not values or not torch.stack(torch._foreach_norm(values, 2)).isfinite().all():
        return pairs
    torch._foreach_lerp_(averages, values, weight)
    done = {id(old) for old, _ in floats}
    return [(old, new) for old, new in pairs if id(old) not in done]
