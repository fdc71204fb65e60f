"""Two processes are one process with the same batch; they end together, also when one fails."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import tiny_training

from benchmarks.kill_points import free_port
from poise.engine.processes import Processes, process_group
from poise.recipes import OptimizerSettings, Recipe
from poise.storage import read_safely

PLAIN = {"dropout": 0.0, "norm": False}  # what draws numbers or looks at its own share differs by definition
# Normalizers are means over ranks, at least 1 (as in the published code): equality needs a positive for each rank.


def forked_ranks(world_size: int, work: Callable[[Processes], object], timeout_minutes: float) -> list[int]:
    """Process numbers of forked ranks that see what ``torchrun`` would tell them; status 0 when work is done."""
    port, children = free_port(), []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                torch.set_num_threads(1)
                names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
                with process_group("cpu", timeout_minutes) as processes:
                    work(processes)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(pid)
    return children


def on_ranks(world_size: int, work: Callable[[Processes], object]) -> list[int]:
    """Exit statuses of forked ranks."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked_ranks(world_size, work, 0.5)]


def assert_one_gradient(network: torch.nn.Module, processes: Processes) -> None:
    """After a backward pass every parameter has a finite gradient, and both ranks the same ones."""
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    norms = torch.stack([gradient.norm() for gradient in gradients if gradient is not None])
    first, second = processes.gather(norms)
    assert torch.equal(first, second) and bool(first.any())


def train(out: Path, recipe: Recipe, processes: Processes, count: int, stop_at: int = -1) -> None:
    training = tiny_training.tiny_training(out, recipe, processes=processes, count=count, **PLAIN)
    if stop_at >= 0 and processes.rank == 1:  # only one process hears the signal

        def before_step(progress: tiny_training.Progress) -> None:
            if progress.step == stop_at:
                os.kill(os.getpid(), 15)

        training.state.network.before_step = before_step
    stopped = training.run()
    assert stopped == ("SIGTERM" if stop_at >= 0 else None)


def recipe_of(name: str) -> Recipe:
    recipe = tiny_training.tiny_recipe(
        accumulate=2 if "accumulated" in name else 1, clip_norm=0.3 if "clipped" in name else 0.0
    )
    return replace(recipe, optimizer=OptimizerSettings("sgd", lr=0.05))  # AdamW would blow rounding up near 0


def weights(out: Path) -> dict[str, torch.Tensor]:
    training = read_safely(out / "last.pt")["training"]
    return {f"{part}/{name}": value for part in ("network", "ema") for name, value in training[part].items()}


@pytest.mark.parametrize(
    ("name", "count", "world_size"),
    [
        ("plain", 40, 2),  # whole batches
        ("plain", 43, 2),  # the last batch of an epoch holds 3 images: one process has 2, the other 1
        ("plain", 42, 2),  # … 2 images: one each; every fourth image has no object
        ("clipped", 43, 2),
        ("accumulated", 44, 2),
        ("plain", 43, 3),  # shares of 3, 3, 2 and a last batch of 1, 1, 1
    ],
)
def test_several_processes_equal_one(tmp_path: Path, name: str, count: int, world_size: int) -> None:
    recipe = recipe_of(name)
    train(tmp_path / "one", recipe, Processes(torch.device("cpu")), count)
    assert on_ranks(world_size, lambda p: train(tmp_path / "many", recipe, p, count)) == [0] * world_size
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    for key, value in one.items():
        if not key.endswith("seen"):
            torch.testing.assert_close(
                many[key], value, rtol=2e-5, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}"
            )
    rows = [read_safely(tmp_path / where / "last.pt")["training"]["rows"] for where in ("one", "many")]
    for single, several in zip(*rows, strict=True):
        assert several["objects_per_batch"] == pytest.approx(single["objects_per_batch"])
        assert several["loss/total"] == pytest.approx(single["loss/total"], rel=1e-4)


def test_a_rank_without_any_object(tmp_path: Path) -> None:
    """Two of six images have none; a share of one image is often without an object, a batch of three never."""
    recipe = recipe_of("plain")
    recipe = replace(recipe, data=replace(recipe.data, batch_size=3))
    train(tmp_path / "one", recipe, Processes(torch.device("cpu")), 6)
    assert on_ranks(3, lambda p: train(tmp_path / "many", recipe, p, 6)) == [0, 0, 0]
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    for key in one:
        if not key.endswith("seen"):
            torch.testing.assert_close(many[key], one[key], rtol=2e-5, atol=2e-6)


def test_a_signal_to_one_process_stops_all_and_resumes_exactly(tmp_path: Path) -> None:
    recipe = recipe_of("plain")
    assert on_ranks(2, lambda p: train(tmp_path / "whole", recipe, p, 43)) == [0, 0]
    assert on_ranks(2, lambda p: train(tmp_path / "parts", recipe, p, 43, stop_at=7)) == [0, 0]
    assert read_safely(tmp_path / "parts" / "last.pt")["training"]["step"] == 8
    assert on_ranks(2, lambda p: train(tmp_path / "parts", recipe, p, 43)) == [0, 0]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_bad_loss_in_one_process_is_named_by_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(processes: Processes) -> None:
        training = tiny_training.tiny_training(tmp_path, recipe_of("plain"), processes=processes, **PLAIN)
        if processes.rank == 1:
            training.state.network.poison = {4: "heat"}
        training.run()

    assert on_ranks(2, work) == [1, 1], "both end"
    output = capfd.readouterr().err
    assert re.search(r"TrainingDiverged: process 1: loss heat = nan at step 5", output)
    assert "process 0: " not in output, "it only shares the gradient"
    assert read_safely(tmp_path / "failed.pt")["training"]["step"] == 4


@contextlib.contextmanager
def torchrun(out: Path, *options: str) -> Iterator[subprocess.CompletedProcess[str]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    script = Path(tiny_training.__file__)
    yield subprocess.run(
        [*command, str(script), str(out), *options], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_under_torchrun_the_same_command(tmp_path: Path) -> None:
    with torchrun(tmp_path, "--plain-network", "--workers=1") as done:
        assert done.returncode == 0, done.stderr
    assert read_safely(tmp_path / "last.pt")["training"]["step"] == 18


@pytest.mark.slow
def test_a_failing_process_ends_the_others(tmp_path: Path) -> None:
    with torchrun(tmp_path, "--plain-network", "--fail-rank=1") as done:
        assert done.returncode != 0
        assert "this rank's disk is gone" in done.stderr
