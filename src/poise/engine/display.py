"""What a person sees of a running training: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Status:
    """What is known after the losses were read."""

    epoch: int  # counted from 1
    epochs: int
    step: int
    steps: int
    rate: float  # learning rate
    images_per_second: float
    seconds_left: float
    losses: dict[str, float]
    objects: float  # a batch
    memory: float  # MB
    nonfinite: int = 0  # places whose predictions were not finite numbers, since the last status

    def line(self) -> str:
        spoiled = f"  nonfinite_predictions {self.nonfinite}" if self.nonfinite else ""
        terms = " ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        return (
            f"loss {sum(self.losses.values()):.3f} ({terms})  lr {self.rate:.2e}  {self.objects:.0f} objects/batch  "
            f"{self.images_per_second:.1f} images/s  {self.memory:.0f} MB  ETA {_clock(self.seconds_left)}{spoiled}"
        )


class Display(Protocol):
    """Three verbs; ``close`` may be called twice."""

    def step(self, step: int) -> None: ...
    def status(self, status: Status) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class SilentDisplay:
    """Nothing is shown (processes other than the first)."""

    def step(self, step: int) -> None: ...
    def status(self, status: Status) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class PlainDisplay:
    """One line at a time on standard output."""

    def step(self, step: int) -> None: ...

    def status(self, status: Status) -> None:
        print(f"epoch {status.epoch}/{status.epochs}  step {status.step}/{status.steps}  {status.line()}", flush=True)

    def message(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None: ...


@dataclass
class LiveDisplay:
    """A bar over the whole training with the present status under it; drawn a few times a second."""

    steps: int
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.bar = Progress(*columns, console=self.console, auto_refresh=False)  # no thread beside data workers
        self.task = self.bar.add_task("starting", total=self.steps, text="")
        self.drawn = 0.0
        self.bar.start()

    def step(self, step: int) -> None:
        self.bar.update(self.task, completed=step)
        if time.monotonic() - self.drawn > 0.2:
            self.bar.refresh()
            self.drawn = time.monotonic()

    def status(self, status: Status) -> None:
        place = f"epoch {status.epoch}/{status.epochs}"
        self.bar.update(self.task, completed=status.step, total=status.steps, description=place, text=status.line())
        self.bar.refresh()

    def message(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self.bar.stop()


def make_display(kind: str, steps: int, first: bool) -> Display:
    """A display by name: ``auto`` (live in a terminal), ``live``, ``plain`` or ``none``.

    Raises:
        ValueError: another name.
    """
    if kind not in ("auto", "live", "plain", "none"):
        raise ValueError(f"progress_display='{kind}' is none of auto, live, plain, none")
    if not first or kind == "none":
        return SilentDisplay()
    return LiveDisplay(steps) if kind == "live" or (kind == "auto" and sys.stdout.isatty()) else PlainDisplay()


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
