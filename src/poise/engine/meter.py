"""Means of losses and counts of objects over a number of steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from poise.engine.health import StepRecord
from poise.engine.processes import Processes


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
        table = processes.gather((self.sums, self.objects, self.images, self.nonfinite))
        names = dict.fromkeys(name for sums, *_ in table for name in sums)
        steps = max(self.steps, 1) * len(table)
        means = {name: sum(sums.get(name, 0.0) for sums, *_ in table) / steps for name in names}
        objects, images, nonfinite = (sum(row[i] for row in table) for i in (1, 2, 3))
        return replace(self, sums=means, objects=objects, images=images, nonfinite=nonfinite)

    def payload(self) -> dict[str, Any]:
        """Return the sums as plain data."""
        counts = {"objects": self.objects, "images": self.images, "nonfinite": self.nonfinite, "steps": self.steps}
        return {"sums": dict(self.sums), **counts, "earlier": self.seconds}

    @staticmethod
    def restored(payload: dict[str, Any]) -> Meter:
        """Return the meter that :meth:`payload` described; its clock continues from now."""
        return Meter(**payload)
