"""Training until the metric stops rising: the rule written out literally, and runs that are killed around it."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_resume import assert_equal, in_a_process, table
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_training

from poise.engine.locks import locked
from poise.engine.patience import Ending, decay, early_stop, ending, last_epoch
from poise.recipes import EvaluateSettings, Recipe, ScheduleSettings, TrainSettings
from poise.storage import read_safely
from poise.structures import Progress


def patient(points: float = 0.3, epochs: int = 1000) -> Recipe:
    schedule = ScheduleSettings(epochs, "constant", milestones=())
    return Recipe(schedule=schedule, train=TrainSettings(patience=points))


def rows_of(values: list[float], every: int = 1) -> list[dict[str, Any]]:
    """An epoch a row; every ``every``-th is validated."""
    return [
        {"epoch": epoch} | ({"val/ap": values[epoch // every - 1]} if epoch % every == 0 else {})
        for epoch in range(1, len(values) * every + 1)
    ]


def literal_start(values: list[float], points: float, every: int) -> int | None:
    """The first epoch at which the last quarter of the training gained too little."""
    for number in range(8, len(values) + 1):
        now = number * every
        late = [v for k, v in enumerate(values[:number], 1) if 4 * k * every > 3 * now]
        early = [v for k, v in enumerate(values[:number], 1) if 4 * k * every <= 3 * now]
        if max(late) - max(early) < points / 100:
            return now
    return None


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.3, 2.0]),
    st.sampled_from([1, 2, 5]),
)
def test_the_rule_against_its_literal_form(steps: list[float], points: float, every: int) -> None:
    values = [sum(steps[: k + 1]) / len(steps) for k in range(len(steps))]  # rising by different amounts
    values = [value if k % 3 else max(0.0, value - 0.05) for k, value in enumerate(values)]
    start = literal_start(values, points, every)
    expected = None if start is None else Ending(start, start + math.ceil(start / 5), False)
    assert ending(rows_of(values, every), patient(points)) == expected


def test_a_decision_is_not_taken_back() -> None:
    values = [0.1] * 8 + [0.9] * 3
    assert ending(rows_of(values), patient()) == Ending(8, 10, False)
    assert ending(rows_of(values[:7]), patient()) is None


def test_text_of_a_csv_file_decides_alike() -> None:
    rows = [{"epoch": str(epoch), "val/ap": "0.25"} for epoch in range(1, 9)]
    assert ending([*rows[:4], {"epoch": "4", "val/ap": ""}, *rows[4:]], patient()) == Ending(8, 10, False)


def test_the_limit_begins_the_decay_of_a_run_that_still_rises() -> None:
    rising = [0.01 * k for k in range(1, 11)]
    assert ending(rows_of(rising), patient(epochs=12)) == Ending(10, 12, True)
    assert ending(rows_of(rising[:9]), patient(epochs=12)) is None
    assert ending(rows_of([0.5] * 10), patient(epochs=9)) == Ending(7, 9, True), "too few validations to tell"
    assert ending(rows_of([0.5] * 10), replace(patient(), train=TrainSettings())) is None


def test_an_undefined_metric_counts_as_none() -> None:
    assert ending(rows_of([float("nan")] * 8), patient()) == Ending(8, 10, False)


def test_the_rate_falls_to_nothing_after_the_last_step() -> None:
    end = Ending(10, 12, False)
    assert [decay(end, step, 5) for step in (0, 49, 50, 55, 59, 60)] == pytest.approx([1, 1, 1, 0.5, 0.1, 0])
    assert decay(None, 59, 5) == 1


def test_settings_that_do_not_go_together_are_refused() -> None:
    for changes, message in (
        ({"schedule": ScheduleSettings()}, "schedule.kind='constant', not 'multistep'"),
        ({"evaluate": EvaluateSettings(every=0)}, "needs validations"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(patient(), **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patience=-1"):
        TrainSettings(patience=-1)


SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def train(
    out: Path, at_step: int = -1, in_save: int = -1, in_validation: int = -1, early: int = 0, minutes: float = 0
) -> None:
    """A training whose metric is given for each epoch; ended by the rule after 8 + 2 of 40 epochs.

    With ``early`` by early stopping instead, of a schedule with milestones.
    """
    torch.use_deterministic_algorithms(True)
    recipe = tiny_training.tiny_recipe()
    schedule = ScheduleSettings(40, "constant", milestones=(), warmup_steps=2)
    if early or minutes:
        schedule = ScheduleSettings(5 if minutes else 40, "multistep", milestones=(4,), warmup_steps=2)
    settings = {"early_stopping": early, "max_minutes": minutes} if early or minutes else {"patience": 0.3}
    recipe = replace(recipe, schedule=schedule, train=replace(recipe.train, **settings))  # type: ignore[arg-type]
    with locked(out):
        training = tiny_training.tiny_training(out, recipe, count=16)

        def before_step(progress: Progress) -> None:
            if progress.step == at_step:
                os.kill(os.getpid(), signal.SIGKILL)

        def validate() -> dict[str, float]:
            epoch = training.state.position.epoch + 1
            if epoch == in_validation:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"score": SCORES[epoch - 1]}

        training.state.network.before_step = before_step
        training.validate = validate
        if in_save >= 0:
            tiny_training._die_in_save(in_save)
        training.run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient")
    assert in_a_process(lambda: train(folder)) == 0
    return folder


def test_the_rule_ends_the_run(undisturbed: Path) -> None:
    rates = [float(row["lr"]) for row in table(undisturbed)]
    assert len(rates) == 10, "eight epochs and a fifth of them, rounded up"
    assert rates[1:8] == [rates[7]] * 7, "the first epoch is the warm-up"
    assert rates[8:] == pytest.approx([rates[7] * 0.75, rates[7] * 0.25]), "two steps an epoch, the rate of the last"
    assert all(row["val/score"] for row in table(undisturbed))


@pytest.mark.parametrize(
    "kill", [{"in_validation": 8}, {"at_step": 16}, {"at_step": 17}, {"at_step": 18}, {"in_validation": 10}]
)
def test_killed_around_the_decision(tmp_path: Path, undisturbed: Path, kill: dict[str, int]) -> None:
    """Before the decisive validation, between it and the first step of the decay, within the decay, in the last one."""
    assert in_a_process(lambda: train(tmp_path, **kill)) == -signal.SIGKILL
    assert in_a_process(lambda: train(tmp_path)) == 0
    assert_equal(read_safely(undisturbed / "last.pt"), read_safely(tmp_path / "last.pt"))
    assert table(tmp_path) == table(undisturbed)


def test_killed_in_every_save_between_validation_and_decision(tmp_path: Path, undisturbed: Path) -> None:
    for number in range(17, 24):
        out = tmp_path / str(number)
        assert in_a_process(lambda number=number, out=out: train(out, in_save=number)) == -signal.SIGKILL
        assert in_a_process(lambda out=out: train(out)) == 0
        assert_equal(read_safely(undisturbed / "last.pt"), read_safely(out / "last.pt"))


def test_a_finished_run_ends_again_at_once(tmp_path: Path, undisturbed: Path) -> None:
    for _ in range(2):
        assert in_a_process(lambda: train(tmp_path)) == 0
    assert_equal(read_safely(undisturbed / "last.pt"), read_safely(tmp_path / "last.pt"))


def impatient(epochs: int, limit: int = 1000) -> Recipe:
    return Recipe(schedule=ScheduleSettings(limit), train=TrainSettings(early_stopping=epochs))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, float("nan")]), min_size=1, max_size=30), st.integers(1, 6))
def test_early_stopping_against_its_literal_form(values: list[float], limit: int) -> None:
    expected = None
    for epoch in range(1, len(values) + 1):
        known = [-1.0 if value != value else value for value in values[:epoch]]
        if expected is None and epoch - (known.index(max(known)) + 1) >= limit:
            expected = epoch
    rows = rows_of(values)
    assert early_stop(rows, impatient(limit)) == expected
    assert last_epoch(rows, impatient(limit, 20)) == min(20, expected or 20)
    assert early_stop(rows, Recipe()) is None


def test_epochs_without_validation_count() -> None:
    rows = rows_of([0.5, 0.4, 0.3], every=2)
    assert early_stop(rows, impatient(3)) == 6 and early_stop(rows, impatient(5)) is None
    with pytest.raises(ValueError, match="early_stopping needs validations"):
        replace(impatient(3), evaluate=EvaluateSettings(every=0))


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    assert in_a_process(lambda: train(folder, early=3)) == 0
    return folder


@pytest.mark.parametrize("kill", [{"in_validation": 8}, {"at_step": 15}, {"in_save": 24}, {"in_save": 25}])
def test_killed_around_early_stopping(tmp_path: Path, stopped_early: Path, kill: dict[str, int]) -> None:
    """The best epoch is the fifth; after the eighth the training ends, killed or not, and ends again at once."""
    assert len(table(stopped_early)) == 8
    status = in_a_process(lambda: train(tmp_path, early=3, **kill))
    assert status == -signal.SIGKILL or kill.get("in_save") == 25
    for _ in range(2):
        assert in_a_process(lambda: train(tmp_path, early=3)) == 0
        assert_equal(read_safely(stopped_early / "last.pt"), read_safely(tmp_path / "last.pt"))
    assert table(tmp_path) == table(stopped_early)


def test_a_run_out_of_time_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    """A limit of no time: each part takes one step or none, and the weights of the first are validated."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert in_a_process(lambda: train(whole, minutes=1e6)) == 0
    assert in_a_process(lambda: train(parts, minutes=1e-9)) == 0
    stored = read_safely(parts / "last.pt") if (parts / "last.pt").exists() else None
    assert stored is None or (stored["training"]["step"] <= 1 and stored["training"]["best"] is None)
    assert (parts / "best.pt").is_file()
    assert in_a_process(lambda: train(parts, minutes=1e6)) == 0
    for name in ("last.pt", "best.pt"):
        assert_equal(
            {k: v for k, v in read_safely(whole / name).items() if k != "training"},
            {k: v for k, v in read_safely(parts / name).items() if k != "training"},
        )
    assert table(whole) == table(parts) and len(table(parts)) == 5
