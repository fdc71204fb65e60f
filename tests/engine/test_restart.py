"""torchrun starts a run again after a process was killed: it goes on by itself, and only its own run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import dying_training

from benchmarks import kill_points
from poise.data.demo import write_demo_data
from poise.engine.restarts import launch, note_launch, was_restarted
from poise.recipes import save_recipe
from poise.storage import read_safely


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    port = kill_points.free_port()
    start = f"-m torch.distributed.run --nproc-per-node=2 --max-restarts=3 --master-port={port}".split()
    command = [sys.executable, *start, dying_training.__file__, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)


@pytest.mark.slow
def test_a_run_whose_process_was_killed_goes_on_by_itself(tmp_path: Path) -> None:
    """Without ``--resume``: the command is the one that began the run, and its end the one of an undisturbed run."""
    data = write_demo_data(tmp_path / "data", train=kill_points.IMAGES, val=3, size=64)
    save_recipe(kill_points.recipe(0), tmp_path / "recipe.yaml")
    words = f"train --config {tmp_path}/recipe.yaml --data {tmp_path}/data --out {tmp_path}/killed --device cpu".split()
    done = torchrun("5", *words)
    assert done.returncode == 0, done.stderr
    assert "resuming at epoch 2, step 4" in done.stdout, "the second start went on after the checkpoint of step 4"
    run_whole = (
        f"from benchmarks.kill_points import *; run(Path({str(tmp_path)!r}) / 'whole', Path({str(data)!r}), 2, 0)"
    )
    root = Path(kill_points.__file__).parents[1]
    subprocess.run([sys.executable, "-c", run_whole], cwd=root, check=True, timeout=400)
    for name in ("last.pt", "best.pt"):
        whole, killed = (read_safely(tmp_path / run / name) for run in ("whole", "killed"))
        assert kill_points.difference(whole, killed) == ""


def test_only_the_start_that_began_the_run_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_launch(tmp_path)
    assert launch() == "" and not list(tmp_path.iterdir()), "without torchrun nothing is noted"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not was_restarted(tmp_path), "another run's folder is not taken over by a second attempt"
    note_launch(tmp_path)
    assert was_restarted(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not was_restarted(tmp_path), "the first start refuses a folder that holds a run"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (tmp_path / "launch.txt").write_text("elsewhere 12 34\n")
    assert not was_restarted(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    (tmp_path / "launch.txt").write_text("job7\n")
    assert was_restarted(tmp_path), "a job's name holds on any computer"
