"""Means of losses and counts of objects over a number of steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

from poise.engine.health import StepRecord
from poise.engine.processes import Processes

Row = Mapping[str, float | str]
"""A row of a table by column."""


class MeterState(TypedDict):
    """The sums of a ``Meter`` as plain data."""

    sums: dict[str, float]
    objects: int
    images: int
    nonfinite: int
    steps: int
    earlier: float


@dataclass
class Meter:
    """Sums over steps; plain data, so that a checkpoint within an epoch can store them."""

    sums: dict[str, float] = field(default_factory=dict)
    objects: int = 0
    images: int = 0
    nonfinite: int = 0  # priors or queries with predictions that are not finite
    steps: int = 0
    earlier: float = 0.0  # seconds before a resume
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.since

    def add(self, record: StepRecord, values: list[float]) -> None:
        """Add a step whose losses have been read."""
        for term, value in zip(record.names, values, strict=True):
            name = term.removeprefix("loss_")
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.objects += record.objects
        self.images += len(record.images)
        self.nonfinite += int(record.nonfinite)
        self.steps += 1

    def means(self, processes: Processes) -> Meter:
        """Return losses per step averaged over processes and counts summed over them; every process must call this."""
        table = processes.gather((self.sums, (self.objects, self.images, self.nonfinite)))
        names = dict.fromkeys(name for sums, _ in table for name in sums)
        steps = max(self.steps, 1) * len(table)
        means = {name: sum(sums.get(name, 0.0) for sums, _ in table) / steps for name in names}
        objects, images, nonfinite = (sum(counts[i] for _, counts in table) for i in range(3))
        return replace(self, sums=means, objects=objects, images=images, nonfinite=nonfinite)

    def payload(self) -> MeterState:
        """Return the sums as plain data."""
        return {
            "sums": dict(self.sums),
            "objects": self.objects,
            "images": self.images,
            "nonfinite": self.nonfinite,
            "steps": self.steps,
            "earlier": self.seconds,
        }

    @staticmethod
    def restored(payload: MeterState) -> Meter:
        """Return the meter that :meth:`payload` described; its clock continues from now."""
        return Meter(**payload)
