"""``poise demo``: the whole way once, on generated scenes and in minutes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.recipes import Recipe

IMAGES = 600, 150  # of the training and validation splits
SHARE = 0.75  # of the time that goes into training; the rest is data, evaluation and pictures


@dataclass(frozen=True)
class Arguments:
    """Generate detection scenes, train a small detector on them, evaluate it, and write a run folder with a report.

    The number of epochs is chosen so that everything takes about --minutes on this machine.
    """

    out: Path | None = None
    """The run folder; by default runs/demo, runs/demo-2, …"""
    minutes: float = 4.0
    """About how long the whole demo may take."""
    epochs: int | None = None
    """Passes over the data instead of a time."""
    images: int = IMAGES[0]
    """Training images to generate; a quarter as many for validation."""
    seed: int = 0
    """Source of every random choice."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""


def run(arguments: Arguments) -> int:
    """Data, training, evaluation, report."""
    from poise.api import Detector, free_folder
    from poise.cli.page import write_page
    from poise.data import write_demo_data
    from poise.engine.run import train
    from poise.recipes import changed
    from poise.recipes.demo import demo
    from poise.storage import write_text_atomically

    started = time.monotonic()
    out = arguments.out or free_folder(Path("runs"), "demo")
    print(f"generating scenes in {out / 'data'}", flush=True)
    data = write_demo_data(out / "data", arguments.images, max(1, arguments.images // 4), arguments.seed)
    left = 60 * arguments.minutes * SHARE - (time.monotonic() - started)
    epochs = arguments.epochs or affordable_epochs(demo(), arguments.images, left)
    recipe = changed(demo(epochs), {"train.seed": arguments.seed})
    result = train(recipe, data=data, out=out, device=arguments.device)
    if not result.finished:
        return result.exit_code
    metrics = Detector(result.best, arguments.device).val(data, batch_size=recipe.data.eval_batch).metrics
    print(metrics.table())
    write_text_atomically(out / "metrics.json", json.dumps(metrics.to_dict(), indent=1))
    page = write_page(out, "poise demo", metrics.to_dict())
    minutes = (time.monotonic() - started) / 60
    print(f"mAP {metrics.ap:.3f}, AP50 {metrics.ap50:.3f} after {epochs} epochs; {minutes:.1f} minutes in all")
    print(f"report: {page}")
    print(f"try: poise predict {out} '{data / 'val'}/*.jpg' --show-scores")
    return 0


def affordable_epochs(recipe: Recipe, images: int, seconds: float) -> int:
    """Epochs over ``images`` that fit into ``seconds`` on this machine, judged by a few training steps; at least 1."""
    import torch

    from poise.models import create_model

    settings, batch = recipe.model, recipe.data.batch
    side = settings.image_size[0]
    options: dict[str, Any] = dict(settings.options)
    model = create_model(settings.name, num_classes=8, image_size=side, **options).train()
    pixels = torch.zeros(batch, 3, side * 3 // 4, side)  # most photographs are about 4 to 3
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]] * 10), "labels": torch.zeros(10, dtype=torch.int64)}
    times = []
    for _ in range(4):
        before = time.monotonic()
        torch.stack(list(model.losses(pixels, [target] * batch).values())).sum().backward()
        times.append(time.monotonic() - before)
    step = 1.3 * min(times[1:])  # reading, augmentation and the optimizer come on top
    return max(1, int(seconds / (step * -(-images // batch))))
