"""The short form of ``benchmarks/long_run.py``: memory, threads, files and workers of a training in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.long_run import GROWTH, Sample, grown, measure


@pytest.mark.slow
def test_nothing_grows_and_nothing_is_left(tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    samples, left = measure(tmp_path, steps=60, workers=1, every=6, images=12)
    assert len(samples) == 10 and not left
    assert {sample.workers for sample in samples} == {1}
    assert len({sample.threads for sample in samples[2:]}) == 1
    assert max(sample.files for sample in samples) - min(sample.files for sample in samples) <= 4
    assert grown(samples) < 2 * GROWTH, "over so few steps the allocator still settles"


def test_growth_is_seen() -> None:
    samples = [Sample(step, 0.0, 100.0 + step, 50.0, 1, 4, 20) for step in range(0, 100, 10)]
    assert grown(samples) > 2 * GROWTH
