"""``poise demo``: train and evaluate a small detector on generated scenes, in minutes."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.recipes import Recipe

SIZE = 256  # longer side of a generated scene
TRAINING_FRACTION = 0.85  # of the time after generating the scenes; the rest is evaluation and pictures
OVERHEAD = 1.4  # time of a step, with data and optimizer, relative to its forward and backward pass


@dataclass(frozen=True)
class Arguments:
    """Generate detection scenes, train a small detector on them, evaluate it, and write a run folder with a report.

    The number of epochs is chosen so that the whole demo takes about --minutes on this machine.
    """

    out: Path | None = None
    """The run folder; by default runs/demo, runs/demo-2, …"""
    minutes: float = 4.0
    """Approximate duration of the whole demo."""
    epochs: int | None = None
    """Number of epochs, instead of --minutes."""
    images: int = 800
    """Number of training images to generate; a fifth as many are added for validation."""
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
    val = max(1, arguments.images // 5)
    data = write_demo_data(out / "data", arguments.images, val, arguments.seed, SIZE, style="plain")
    seconds = TRAINING_FRACTION * (60 * arguments.minutes - (time.monotonic() - started))
    precision, step = fastest_precision(demo())
    epochs = arguments.epochs or affordable_epochs(step, -(-arguments.images // demo().data.batch_size), seconds)
    recipe = with_settings(demo(epochs), {"train.seed": arguments.seed, "train.precision": precision})
    result = train(recipe, data=data, out=out, device=arguments.device)
    if not result.finished:
        return result.exit_code
    metrics = Metrics.from_dict(json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    print(metrics.table())
    page = write_page(out, "poise demo")
    minutes = (time.monotonic() - started) / 60
    print(f"AP {percent(metrics.ap)}, AP50 {percent(metrics.ap50)} after {epochs} epochs, {minutes:.1f} minutes")
    print(f"report: {page}")
    print(f"try: poise predict {out} '{data / 'val'}/*.jpg' --show-scores --score-threshold 0.2")
    return 0


def affordable_epochs(step: float, steps: int, seconds: float) -> int:
    """Return how many epochs of ``steps`` fit into ``seconds`` if a step takes ``step`` seconds; at least 1."""
    return max(1, int(seconds / (OVERHEAD * step * steps)))


def fastest_precision(recipe: Recipe) -> tuple[str, float]:
    """Return ``fp32`` or ``bf16``, whichever is faster on this CPU, and the seconds of a step."""
    times = {precision: _step_time(recipe, precision) for precision in ("fp32", "bf16")}
    best = min(times, key=lambda precision: times[precision])
    return best, times[best]


def _step_time(recipe: Recipe, precision: str) -> float:
    """Return the median seconds of forward and backward pass of the recipe's model on one batch."""
    import torch

    from poise.models import create_model

    settings, batch = recipe.model, recipe.data.batch_size
    side, options = settings.image_size[0], dict[str, Any](settings.options)
    model = create_model(settings.name, num_classes=8, image_size=side, **options).train()
    model.to(memory_format=torch.channels_last)
    pixels = torch.zeros(batch, 3, side, side).to(memory_format=torch.channels_last)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]] * 8), "labels": torch.zeros(8, dtype=torch.int64)}
    times = []
    for _ in range(7):
        before = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = model.losses(pixels, [target] * batch)
        torch.stack(list(losses.values())).sum().backward()
        times.append(time.monotonic() - before)
    return statistics.median(times[2:])
