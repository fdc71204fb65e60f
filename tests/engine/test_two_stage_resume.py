"""A two-stage model draws its samples from the run's seed, and a killed run draws what it would have drawn."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_resume import assert_equal, in_a_process

from poise.data.demo import write_demo_data
from poise.engine import train
from poise.engine.step import Stepper
from poise.recipes import Recipe, finetune, with_settings
from poise.sample import PositiveNegativeSampler
from poise.storage import read_safely
from poise.structures import Batch, Sample

STEPS = 9  # of three epochs
OPTIONS = {"backbone": "test_byobnet", "channels": 16, "hidden": 32, "anchors": 32, "regions": 16, "proposals": 50}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data") / "scenes", train=6, val=1, size=64)


def recipe(sampler: str = "random", seed: int = 0) -> Recipe:
    settings = {
        "model.backbone_weights": "none",
        "model.options": {**OPTIONS, "sampler": sampler},
        "data.batch_size": 2,
        "data.workers": 0,
        "data.val": "none",
        "train.save_every": 2,
        "train.seed": seed,
    }
    return with_settings(finetune("faster_rcnn_r18_fpn", 3, 64), settings)


def run(out: Path, data: Path, plan: Recipe, die_at: int = -1) -> int:
    """Exit status of a process that trains (or goes on), and dies before step ``die_at``.

    Every sample that it draws is noted in ``samples.jsonl`` next to the run folder: step, and the chosen priors.
    """

    def work() -> None:
        step, draw, now = Stepper.__call__, PositiveNegativeSampler.__call__, [-1]

        def stepped(self: Stepper, batches: Sequence[Batch]) -> Any:
            now[0] = self.state.position.step
            if now[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, batches)

        def drawn(self: PositiveNegativeSampler, *rest: Any) -> Sample:
            sample = draw(self, *rest)
            if now[0] >= 0:  # before the first step, the plan of the training estimates its memory
                with Path(f"{out}.jsonl").open("a") as file:
                    file.write(json.dumps([now[0], sample.index[sample.mask].tolist()]) + "\n")
            return sample

        Stepper.__call__, PositiveNegativeSampler.__call__ = stepped, drawn  # type: ignore[method-assign, assignment]
        train(plan, data=data, out=out, resume=True, device="cpu", progress_display="none")

    return in_a_process(work)


def samples(out: Path) -> dict[int, list[list[int]]]:
    """The samples of each step, RPN's and the second stage's; steps that were done twice were done alike."""
    lines = [json.loads(line) for line in Path(f"{out}.jsonl").read_text().splitlines()]
    found: dict[int, list[list[int]]] = {}
    for (step, first), (again, second) in zip(lines[::2], lines[1::2], strict=True):
        assert step == again and found.setdefault(step, [first, second]) == [first, second]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(out, scenes, recipe()) == 0
    return out


def test_killed_in_the_middle_and_resumed_ends_the_same_to_the_bit(tmp_path: Path, scenes: Path, whole: Path) -> None:
    torn = tmp_path / "torn"
    assert run(torn, scenes, recipe(), die_at=5) == -signal.SIGKILL
    assert read_safely(torn / "last.pt")["training"]["step"] == 4
    assert run(torn, scenes, recipe()) == 0
    for name in ("last.pt", "best.pt"):
        assert_equal(read_safely(whole / name), read_safely(torn / name))
    drawn = samples(whole)
    assert sorted(drawn) == list(range(STEPS)) and samples(torn) == drawn
    assert all(len(first) == 2 * 32 and max(first) > 200 for first, _ in drawn.values()), "there was a choice"


@pytest.mark.parametrize(("sampler", "seed"), [("random", 1), ("balanced", 0)])
def test_another_seed_or_sampler_samples_otherwise(
    tmp_path: Path, scenes: Path, whole: Path, sampler: str, seed: int
) -> None:
    """The comparison above can fail."""
    assert run(tmp_path / "other", scenes, recipe(sampler, seed)) == 0
    ours, theirs = samples(whole), samples(tmp_path / "other")
    assert all(ours[step] != theirs[step] for step in range(STEPS))
    weights = [read_safely(out / "last.pt")["weights"] for out in (whole, tmp_path / "other")]
    assert not torch.equal(*(w["network.branch.region.head.classes.weight"] for w in weights))
