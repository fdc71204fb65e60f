"""Runs that were killed at any moment end as if they had not been: to the bit."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_training

from poise.engine.checkpoints import read_last, save_last
from poise.engine.locks import locked
from poise.recipes import Recipe
from poise.storage import DamagedFile, read_safely
from poise.structures import Progress

CLOCKS = {"seconds", "memory_mb", "earlier"}  # what may differ between equal runs


def in_a_process(work: Callable[[], None], interfere: Callable[[int], None] = lambda pid: None) -> int:
    """Run ``work`` in a process of its own; its exit status, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    interfere(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def train(
    out: Path, recipe: Recipe, *, workers: int = 0, at_step: int = -1, signal_name: str = "SIGKILL", in_save: int = -1
) -> None:
    """A training that goes on where ``out`` stands, and sends itself a signal at the given step."""
    torch.use_deterministic_algorithms(True)
    with locked(out):
        training = tiny_training.tiny_training(out, recipe, workers=workers)

        def before_step(progress: Progress) -> None:
            if progress.step == at_step:
                os.kill(os.getpid(), getattr(signal, signal_name))

        training.state.network.before_step = before_step
        if in_save >= 0:
            tiny_training._die_in_save(in_save)
        stopped = training.run()
        assert stopped == (None if at_step < 0 else signal_name)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            if key not in CLOCKS:
                assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b or (a != a and b != b), where


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


RECIPES = {
    "adamw": tiny_training.tiny_recipe(),
    "accumulated": tiny_training.tiny_recipe(accumulate=2, clip_norm=0.5),
    "bf16": tiny_training.tiny_recipe(precision="bf16"),
}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, recipe in RECIPES.items():
        folders[name] = tmp_path_factory.mktemp("undisturbed") / name
        assert in_a_process(lambda recipe=recipe, out=folders[name]: train(out, recipe)) == 0
    return folders


def assert_same_end(out: Path, expected: Path) -> None:
    assert_equal(read_safely(expected / "last.pt"), read_safely(out / "last.pt"))
    assert_equal(read_safely(expected / "best.pt"), read_safely(out / "best.pt"))
    assert table(expected) == table(out)
    assert not list(out.glob(".*.part")) and not (out / "run.lock").exists()


def test_the_fingerprint_tells_orders_apart(undisturbed: dict[str, Path]) -> None:
    """The comparison can fail: another seed sees other images and ends elsewhere."""
    network = read_safely(undisturbed["adamw"] / "last.pt")["training"]["network"]
    other = read_safely(undisturbed["accumulated"] / "last.pt")["training"]["network"]
    assert int(network["seen"]) != 0
    assert not torch.equal(network["backbone.0.weight"], other["backbone.0.weight"])


@pytest.mark.parametrize("step", [0, 2, 3, 5, 6, 13, 17])  # before any checkpoint, at one, mid-epoch, at an epoch's end
def test_killed_at_a_step(tmp_path: Path, undisturbed: dict[str, Path], step: int) -> None:
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], at_step=step)) == -signal.SIGKILL
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


@pytest.mark.parametrize("name", ["accumulated", "bf16"])
def test_killed_twice(tmp_path: Path, undisturbed: dict[str, Path], name: str) -> None:
    for step in (4, 10):
        assert in_a_process(lambda step=step: train(tmp_path, RECIPES[name], at_step=step)) == -signal.SIGKILL
    assert in_a_process(lambda: train(tmp_path, RECIPES[name])) == 0
    assert_same_end(tmp_path, undisturbed[name])


@pytest.mark.parametrize(("before", "after"), [(2, 2), (0, 2), (1, 0)])
def test_killed_with_data_workers(tmp_path: Path, undisturbed: dict[str, Path], before: int, after: int) -> None:
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], workers=before, at_step=8)) == -signal.SIGKILL
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], workers=after)) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


@pytest.mark.parametrize("number", [0, 1, 4, 7])
def test_killed_during_a_save(tmp_path: Path, undisturbed: dict[str, Path], number: int) -> None:
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], in_save=number)) == -signal.SIGKILL
    assert list(tmp_path.glob(".*.part")), "the torn file must be there for this test to mean something"
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


@pytest.mark.parametrize("seed", range(3))
def test_killed_from_outside_at_a_random_time(tmp_path: Path, undisturbed: dict[str, Path], seed: int) -> None:
    def kill_later(pid: int) -> None:
        time.sleep(0.15 + random.Random(seed).random() * 0.4)
        os.kill(pid, signal.SIGKILL)

    in_a_process(lambda: train(tmp_path, RECIPES["adamw"], workers=1), kill_later)
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_signal_finishes_the_step_and_saves(tmp_path: Path, undisturbed: dict[str, Path], name: str) -> None:
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], at_step=7, signal_name=name)) == 0
    assert read_safely(tmp_path / "last.pt")["training"]["step"] == 8, "the step that was running is kept"
    assert not (tmp_path / "run.lock").exists()
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], workers=1)) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_last_checkpoint_gives_way_to_the_previous(
    tmp_path: Path, undisturbed: dict[str, Path], damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], at_step=8)) == -signal.SIGKILL
    last = tmp_path / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])
    output = capfd.readouterr().out
    assert damage == "missing" or ("last.pt is damaged" in output and "continuing from previous.pt" in output)


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read_last(tmp_path)
    for value in (1, 2, 3):
        save_last(tmp_path, {"value": value})
    assert (read_last(tmp_path)[0]["value"], read_safely(tmp_path / "previous.pt")["value"]) == (3, 2)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(DamagedFile):
        read_last(tmp_path)


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path: Path, undisturbed: dict[str, Path]) -> None:
    """A run killed after an epoch's row was written but before its checkpoint does not write the row twice."""
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"], at_step=8)) == -signal.SIGKILL
    with (tmp_path / "results.csv").open("a") as file:
        file.write("2,12,9,9,9,9,9,9,9,9\n")
    assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2", "3"]
    assert_same_end(tmp_path, undisturbed["adamw"])


def test_a_finished_run_resumes_to_itself(tmp_path: Path, undisturbed: dict[str, Path]) -> None:
    for _ in range(2):
        assert in_a_process(lambda: train(tmp_path, RECIPES["adamw"])) == 0
    assert_same_end(tmp_path, undisturbed["adamw"])


def test_more_epochs_go_on(tmp_path: Path) -> None:
    recipe = RECIPES["adamw"]
    assert in_a_process(lambda: train(tmp_path, recipe)) == 0
    longer = replace(recipe, schedule=replace(recipe.schedule, epochs=4))
    assert in_a_process(lambda: train(tmp_path, longer)) == 0
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2", "3", "4"]
