"""Real trainings, killed and resumed: the short form of ``benchmarks/kill_points.py``."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from benchmarks import kill_points
from benchmarks.kill_points import Point
from poise.data.demo import write_demo_data

BOUND = 20.0  # seconds that the other rank may live on, on a busy computer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "workers", "points"),
    [
        (1, 0, [Point("in a step", 4), Point("in a validation", 1)]),
        (2, 2, [Point("in a validation", 1, 1), Point("in a save", 3)]),
    ],
)
def test_killed_in_steps_saves_and_validations(tmp_path: Path, ranks: int, workers: int, points: list[Point]) -> None:
    data = write_demo_data(tmp_path / "data", train=kill_points.IMAGES, val=3, size=64)
    assert kill_points.run(tmp_path / "whole", data, ranks, workers).codes == (0,) * ranks
    for number, point in enumerate(points):
        out = tmp_path / str(number)
        killed, differing = kill_points.kill_and_resume(out, tmp_path / "whole", data, ranks, workers, point)
        assert -signal.SIGKILL in killed.codes and killed.wait < BOUND
        assert differing == ""


def test_points_are_of_every_kind() -> None:
    points = kill_points.draw_points(20, 2, 5.0, random.Random(0))
    assert {point.kind for point in points} == set(kill_points.KINDS)
    assert {point.rank for point in points} == {0, 1}
