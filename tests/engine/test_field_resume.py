"""A run that is resumed with another batch size or other data goes on at the same share of its schedule."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_training import Training, tiny_recipe, tiny_training

from poise.engine.display import Status
from poise.engine.schedule import base_rate, factor
from poise.recipes import Recipe, ScheduleSettings
from poise.structures import Progress

EPOCHS, IMAGES = 4, 48


def recipe_of(batch_size: int, accumulate: int = 1) -> Recipe:
    recipe = tiny_recipe(accumulate=accumulate, log_every=1)
    schedule = ScheduleSettings(EPOCHS, "cosine", (), warmup_steps=0)
    return replace(recipe, schedule=schedule, data=replace(recipe.data, batch_size=batch_size))


class Recorded:
    """A display that keeps what it is given."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []

    def step(self, step: int) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...

    def status(self, status: Status) -> None:
        self.statuses.append(status)


def run(training: Training, stop_at: int | None = None) -> tuple[list[float], Recorded]:
    """Rates of the steps that are made, and what was shown; optionally ended by a signal in step ``stop_at``."""
    rates: dict[int, float] = {}
    display = training.log.display = Recorded()

    def before_step(progress: Progress) -> None:
        assert progress.fraction == training.scheduled_step / (EPOCHS * training.steps_per_epoch)
        rates[training.state.position.step] = training.state.rate
        if training.state.position.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    training.state.network.before_step = before_step
    stopped = training.run()
    assert stopped == (None if stop_at is None else "SIGTERM")
    return list(rates.values()), display


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    base = base_rate(recipe.optimizer, recipe.data.batch_size)
    return base * factor(recipe.schedule, step, steps_per_epoch)


@pytest.mark.parametrize(
    ("before", "after", "images", "stop_at", "done"),
    [
        (8, 4, IMAGES, 11, 24),  # at the end of epoch 2: 12 steps of 6 an epoch, 24 of 12
        (8, 4, IMAGES, 14, 30),  # in the middle of epoch 3: 15 steps, half of the epoch
        (4, 8, IMAGES, 29, 15),
        (8, 8, 2 * IMAGES, 14, 30),  # twice the images
        (8, 12, IMAGES, 14, 10),
    ],
)
def test_another_batch_size_or_other_data(
    tmp_path: Path, before: int, after: int, images: int, stop_at: int, done: int
) -> None:
    run(tiny_training(tmp_path, recipe_of(before), count=IMAGES), stop_at)
    recipe = recipe_of(after)
    training = tiny_training(tmp_path, recipe, count=images)
    assert training.state.position.step == stop_at + 1 and training.scheduled_step == done
    rates, display = run(training)
    per_epoch = images // after
    expected = [rate_at(recipe, step, per_epoch) for step in range(done, EPOCHS * per_epoch)]
    assert rates == pytest.approx(expected) and len(expected) == EPOCHS * per_epoch - done
    last = display.statuses[-1]
    assert last.step == last.steps == stop_at + 1 + len(expected)
    assert (training.state.position.epoch, training.state.position.batch) == (EPOCHS, 0)


def test_an_unchanged_run_counts_steps_as_ever(tmp_path: Path) -> None:
    recipe = recipe_of(8, accumulate=2)
    rates, display = run(tiny_training(tmp_path / "whole", recipe, count=43))
    per_epoch = 6  # 11 batches of 4, two a step
    assert rates == pytest.approx([rate_at(recipe, step, per_epoch) for step in range(EPOCHS * per_epoch)])
    assert [status.step for status in display.statuses] == list(range(1, 25))
    assert {status.steps for status in display.statuses} == {24}
    run(tiny_training(tmp_path / "parts", recipe, count=43), stop_at=8)
    training = tiny_training(tmp_path / "parts", recipe, count=43)
    assert training.scheduled_step == training.state.position.step == 9
    again, _ = run(training)
    assert again == rates[9:]
