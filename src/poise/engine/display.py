"""Progress of a training on the screen: bars and a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from poise.evaluate.loss_terms import grouped
from poise.suggestions import clock

REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class Status:
    """Means over the steps since the previous status."""

    epoch: int  # counted from 1
    epochs: int
    step: int
    steps: int
    rate: float  # learning rate
    images_per_second: float
    seconds_left: float
    losses: dict[str, float]
    objects: float  # per batch
    memory: float  # MB
    nonfinite: int = 0  # priors or queries with predictions that are not finite

    def line(self) -> str:
        """Return one line of text; the terms of models with many losses are summed by group."""
        nonfinite = f"  nonfinite_predictions {self.nonfinite}" if self.nonfinite else ""
        terms = " ".join(f"{name} {value:.3f}" for name, value in grouped(self.losses).items())
        return (
            f"loss {sum(self.losses.values()):.3f} ({terms})  lr {self.rate:.2e}  {self.objects:.0f} objects/batch  "
            f"{self.images_per_second:.1f} images/s  {self.memory:.0f} MB  ETA {clock(self.seconds_left)}{nonfinite}"
        )


class Display(Protocol):
    """Shows steps, statuses and messages; ``close`` may be called twice."""

    def step(self, step: int) -> None: ...
    def status(self, status: Status) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class SilentDisplay:
    """Shows nothing: for processes other than the first."""

    def step(self, step: int) -> None: ...
    def status(self, status: Status) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class PlainDisplay:
    """Prints one line per status or message on standard output."""

    def step(self, step: int) -> None: ...

    def status(self, status: Status) -> None:
        print(f"epoch {status.epoch}/{status.epochs}  step {status.step}/{status.steps}  {status.line()}", flush=True)

    def message(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None: ...


@dataclass
class LiveDisplay:
    """Draws a bar of the whole training and one of the epoch, with the latest status below."""

    steps: int
    console: Console = field(default_factory=Console)
    epochs: int = 1

    def __post_init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.progress = Progress(*columns, console=self.console, auto_refresh=False)  # without a thread
        self.steps_per_epoch = max(1, self.steps // max(1, self.epochs))
        self.training = self.progress.add_task("starting", total=self.steps, text="")
        self.epoch = self.progress.add_task("this epoch", total=self.steps_per_epoch, text="", visible=self.epochs > 1)
        self.drawn = 0.0
        self.progress.start()

    def step(self, step: int) -> None:
        self.progress.update(self.training, completed=step)
        self.progress.update(self.epoch, completed=(step - 1) % self.steps_per_epoch + 1)
        if time.monotonic() - self.drawn > REFRESH_SECONDS:
            self.progress.refresh()
            self.drawn = time.monotonic()

    def status(self, status: Status) -> None:
        epoch = f"epoch {status.epoch}/{status.epochs}"
        self.progress.update(
            self.training, completed=status.step, total=status.steps, description=epoch, text=status.line()
        )
        self.progress.refresh()

    def message(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self.progress.stop()


def make_display(kind: str, steps: int, first: bool, epochs: int = 1) -> Display:
    """Make a display by name: ``auto`` (live in a terminal), ``live``, ``plain`` or ``none``.

    Raises:
        ValueError: another name.
    """
    if kind not in ("auto", "live", "plain", "none"):
        raise ValueError(f"progress_display='{kind}' is none of auto, live, plain, none")
    if not first or kind == "none":
        return SilentDisplay()
    live = kind == "live" or (kind == "auto" and sys.stdout.isatty())
    return LiveDisplay(steps, epochs=epochs) if live else PlainDisplay()
