"""A run of the plan from its recipe to its result file, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.claims.matches import Matches
from benchmarks.claims.plan import ClaimRun
from benchmarks.claims.run import METRICS, read_results, train_one
from poise.data.demo import write_demo_data
from poise.engine.health import TrainingDiverged
from poise.evaluate.bootstrap import average_precision
from poise.recipes import Recipe, finetune, with_settings

RUN = ClaimRun(1, "final", "ATSS", "scenes", 1, 1e-3, 2, 1)


def tiny(run: ClaimRun, path: str) -> Recipe:
    options = {"backbone": "test_byobnet", "channels": 16, "depth": 1, "score_threshold": 0.0}
    changes = {
        "model.backbone_weights": "none",
        "model.options": options,
        "data.path": path,
        "data.workers": 0,
        "data.batch_size": 4,
        "train.lab_every": 1,
        "train.seed": run.seed,
        "evaluate.every": run.every,
        "evaluate.pictures": 0,
    }
    return with_settings(finetune("atss_r18_fpn", run.epochs, 64), changes)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_demo_data(tmp_path / "scenes", train=6, val=2, test=3, size=64)
    monkeypatch.chdir(tmp_path)  # undoes the change of folder afterwards
    monkeypatch.setattr(ClaimRun, "recipe", tiny)
    return tmp_path


def test_a_result_says_all_that_the_tables_need(home: Path) -> None:
    assert train_one(RUN, home, home / "results", "abc1234") == 0
    result = read_results(home / "results")[RUN.name]
    assert (result["commit"], result["epochs"], result["steps"], result["seed"]) == ("abc1234", 2, 4, 1)
    assert [step for step, _ in result["curve"]] == [2, 4] and set(result["test"]) == set(METRICS)
    assert result["cpu_minutes"] > 0 and result["parameters"] > 1000 and "dense/positives" in result["lab"]
    matches = Matches.load(home / "results" / f"{RUN.name}.npz")
    assert len(matches.objects) == 3, "the three images of the test split"
    assert average_precision(matches, np.ones(3)) == pytest.approx(result["test"]["ap"], abs=1e-5)
    assert not list((home / "runs" / RUN.name).glob("*.pt")), "nothing large is left"


def test_a_run_that_diverges_is_recorded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise TrainingDiverged("loss is NaN at step 3", home / "failed.pt")

    monkeypatch.setattr("poise.engine.train", diverge)
    (home / "runs" / RUN.name).mkdir(parents=True)
    assert train_one(RUN, home, home / "results", "abc1234") == 0
    result = read_results(home / "results")[RUN.name]
    assert result["failed"] == "loss is NaN at step 3" and "test" not in result
