"""A process that fails, dies or hangs: the others end in bounded time, and what happened first is what is read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine.test_distributed import forked_ranks
from support import tiny_training

from poise.engine.health import LostProcess, lost_process
from poise.engine.processes import Processes
from poise.recipes import OptimizerSettings

AT_ONCE = 20.0  # seconds, on a busy computer; what is waited for is a closed connection
Fate = Callable[[], None]


def fail() -> None:
    raise OSError("this rank's disk is gone")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(600)


def train(out: Path, processes: Processes, fate: Fate) -> None:
    recipe = replace(tiny_training.tiny_recipe(), optimizer=OptimizerSettings("sgd", lr=0.05))
    training = tiny_training.tiny_training(out, recipe, processes=processes, dropout=0.0, norm=False)

    def before_step(progress: tiny_training.Progress) -> None:
        if progress.step == 4 and processes.rank == 1:
            fate()

    training.state.network.before_step = before_step
    training.run()


def end_of_both(out: Path, fate: Fate, patience: float) -> tuple[list[int], float]:
    """Exit statuses of two forked processes, and how long rank 0 lived after rank 1 met its fate; rank 1 is ended."""

    def work(processes: Processes) -> None:
        train(out, processes, lambda: ((out / "met").write_text(str(time.time())), fate()))

    children = forked_ranks(2, work, timeout_minutes=patience / 60)
    first = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
    waited = time.time() - float((out / "met").read_text())
    if fate is hang:
        os.kill(children[1], signal.SIGKILL)
    return [first, os.waitstatus_to_exitcode(os.waitpid(children[1], 0)[1])], waited


@pytest.mark.parametrize(("fate", "code", "patience"), [(fail, 1, 60.0), (be_killed, -9, 60.0), (hang, -9, 4.0)])
def test_the_others_end_in_bounded_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fate: Fate, code: int, patience: float
) -> None:
    codes, waited = end_of_both(tmp_path, fate, patience)
    assert codes == [1, code]
    assert waited < AT_ONCE + (patience if fate is hang else 0)
    output = capfd.readouterr().err
    assert "LostProcess: another process of this run has ended or does not respond" in output
    assert "--resume continues from the last checkpoint" in output
    if fate is fail:
        assert "OSError: this rank's disk is gone" in output
    assert (tmp_path / "last.pt").is_file()


def test_other_errors_are_not_taken_for_a_lost_process() -> None:
    assert lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    lost = lost_process(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:5"))
    assert isinstance(lost, LostProcess) and "(Connection closed by peer)" in str(lost)
