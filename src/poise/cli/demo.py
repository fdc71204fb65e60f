"""``poise demo``: train and evaluate a small detector on generated scenes, in minutes."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from poise.suggestions import plural

if TYPE_CHECKING:
    from poise.recipes import Recipe

SIZE = 256  # longer side of a generated scene
TRAINING_FRACTION = 0.85  # of the time after generating the scenes; the rest is evaluation, pictures and slower steps
WARM_STEPS, TIMED_STEPS = 2, 8  # of which the speed of a training step is the median


@dataclass(frozen=True)
class Arguments:
    """Generate detection scenes, train a small detector on them, evaluate it, and write a run folder with a report.

    Training starts from the small network inside the package, which has seen other scenes with other classes. The
    number of epochs is chosen so that the whole demo takes about --minutes on this machine.
    """

    out: Path | None = None
    """The run folder; by default runs/demo, runs/demo-2, …"""
    minutes: float = 4.0
    """Approximate duration of the whole demo."""
    epochs: int | None = None
    """Number of epochs, instead of --minutes."""
    from_scratch: bool = False
    """Start from random weights."""
    images: int = 1200
    """Number of training images to generate; an eighth as many are added for validation."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""


def run(arguments: Arguments) -> int:
    """Generate data, train, evaluate and write the report."""
    from poise.api import free_folder
    from poise.cli.page import write_page
    from poise.data import write_demo_data
    from poise.engine.run import train
    from poise.evaluate import Metrics, percent
    from poise.recipes import with_settings
    from poise.recipes.demo import demo

    started = time.monotonic()
    out = arguments.out or free_folder(Path("runs"), "demo")
    print(f"generating scenes in {out / 'data'}", flush=True)
    val = max(1, arguments.images // 8)
    data = write_demo_data(out / "data", arguments.images, val, arguments.seed, size=SIZE, style="plain")
    seconds = TRAINING_FRACTION * (60 * arguments.minutes - (time.monotonic() - started))
    recipe = with_settings(demo(1, arguments.from_scratch), {"data.path": str(data), "train.seed": arguments.seed})
    precision, step = fastest_precision(recipe)
    epochs = arguments.epochs or affordable_epochs(step, -(-arguments.images // recipe.data.images_per_step), seconds)
    recipe = with_settings(recipe, {"schedule.epochs": epochs, "train.precision": precision})
    result = train(recipe, out=out, device=arguments.device)
    if not result.finished:
        return result.exit_code
    metrics = Metrics.from_dict(json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    print(metrics.table())
    page = write_page(out, "poise demo")
    minutes = (time.monotonic() - started) / 60
    start = (
        "random weights" if arguments.from_scratch else "the network inside the package (other scenes, other classes)"
    )
    print(
        f"AP {percent(metrics.ap)}, AP50 {percent(metrics.ap50)} after {plural(epochs, 'epoch')}, {minutes:.1f} minutes"
    )
    print(f"started from {start}")
    print(f"report: {page}")
    print(f"try: poise predict {out} '{data / 'val'}/*.jpg' --show-scores --score-threshold 0.2")
    return 0


def affordable_epochs(step: float, steps: int, seconds: float) -> int:
    """Return how many epochs of ``steps`` fit into ``seconds`` if a step takes ``step`` seconds; at least 1."""
    return max(1, int(seconds / (step * steps)))


def fastest_precision(recipe: Recipe) -> tuple[str, float]:
    """Return ``fp32`` or ``bf16``, whichever is faster on this CPU, and the seconds of a step."""
    from poise.recipes import with_settings

    times = {name: step_time(with_settings(recipe, {"train.precision": name})) for name in ("fp32", "bf16")}
    best = min(times, key=lambda precision: times[precision])
    return best, times[best]


def step_time(recipe: Recipe) -> float:
    """Return the median seconds of a training step of the recipe on its data: images, losses, gradients, optimizer."""
    import torch

    from poise.data.loader import train_loader
    from poise.engine.model import build_model
    from poise.engine.processes import Processes
    from poise.engine.sources import open_sets
    from poise.engine.state import TrainingState
    from poise.engine.step import Stepper

    images, _, _ = open_sets(recipe.data)
    model, _ = build_model(recipe, images, fresh=False)
    model.network.train().to(memory_format=torch.channels_last)
    processes = Processes(torch.device("cpu"))
    stepper = Stepper(TrainingState(model.network, recipe, processes.device), processes, recipe.train)
    loader = train_loader(images, recipe.augment, model.preprocess, batch_size=recipe.data.images_per_step)
    times = []
    for batch in islice(loader.epoch(0), WARM_STEPS + TIMED_STEPS):
        stepper([batch])
        times.append(time.monotonic())
    return statistics.median([after - before for before, after in pairwise(times[WARM_STEPS - 1 :])] or [0.1])
