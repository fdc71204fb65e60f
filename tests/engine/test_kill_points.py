"""Real trainings, killed and resumed: the short form of ``benchmarks/kill_points.py``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kill_points


@pytest.mark.slow
def test_killed_in_steps_saves_and_validations() -> None:
    """In a process of its own: forks of one that has run other tests may inherit a held lock."""
    command = [sys.executable, kill_points.__file__, *"--points 3 --ranks 2 --workers 1".split()]
    sources = os.pathsep.join([str(Path(kill_points.__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": sources}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 2 | 1 | 3 | 3 | 3 |" in done.stdout, "three kills, all landed, all resumed bit-equal"


def test_points_are_of_every_kind() -> None:
    points = kill_points.draw_points(20, 2, 5.0, random.Random(0))
    assert {point.kind for point in points} == set(kill_points.KINDS)
    assert {point.rank for point in points} == {0, 1}
