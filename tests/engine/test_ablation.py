"""Ablations as runs: finished runs stay, stopped runs continue, failures are reported, the table has means."""

from __future__ import annotations

import csv
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny import TINY_MODEL

from poise.cli import main
from poise.data.demo import write_demo_data
from poise.engine import TrainingDiverged
from poise.engine import ablation as engine_ablation
from poise.engine.ablation import ablate
from poise.engine.ablation_table import RunNumbers, markdown, write_tables
from poise.engine.locks import locked
from poise.engine.run import RunResult
from poise.recipes import Recipe, finetune, with_settings
from poise.recipes.ablation import Ablation, Variant

PAIR = Ablation((Variant("five", {"model.options.topk": 5}), Variant("nine", {"model.options.topk": 9})))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data") / "scenes", train=4, val=2, size=64)


@pytest.fixture
def recipe(data: Path) -> Recipe:
    options = {"backbone": "test_byobnet", "channels": 16, "depth": 1}
    settings = {"model.backbone_weights": "none", "model.options": options, "evaluate.pictures": 0}
    return with_settings(finetune("atss_r18_fpn", 1, 64), {**settings, "data.path": str(data), "data.batch_size": 4})


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the trainings that the ablation starts."""
    started: list[Path] = []
    own = engine_ablation.train

    def noted(recipe: Recipe, **settings: object) -> RunResult:
        started.append(Path(str(settings["out"])))
        return own(replace(recipe, data=replace(recipe.data, workers=0)), **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_ablation, "train", noted)
    return started


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_runs_make_a_table_and_are_not_repeated_or_mixed(
    recipe: Recipe, trainings: list[Path], tmp_path: Path
) -> None:
    recipe = with_settings(recipe, {"data.workers": 0})
    result = ablate(recipe, replace(PAIR, seeds=(0, 1)), out=tmp_path, progress_display="none")
    assert result.exit_code == 0
    assert [str(path.relative_to(tmp_path)) for path in trainings] == [
        os.path.join(name, seed) for seed in ("seed-0", "seed-1") for name in ("five", "nine")
    ]
    each = rows(tmp_path / "runs.csv")
    assert [(row["variant"], row["seed"]) for row in each] == [
        ("five", "0"),
        ("nine", "0"),
        ("five", "1"),
        ("nine", "1"),
    ]
    last = rows(tmp_path / "five" / "seed-1" / "results.csv")[-1]
    assert float(each[2]["ap50"]) == float(last["val/ap50"])
    table = result.markdown.read_text(encoding="utf-8").splitlines()
    assert len(table) == 4
    assert table[2].startswith("| five | ")
    assert table[2].endswith(" | 2 |")

    again = ablate(recipe, replace(PAIR, seeds=(0, 1)), out=tmp_path, progress_display="none")
    assert len(trainings) == 4
    assert again.markdown.read_text(encoding="utf-8").splitlines() == table

    longer = with_settings(recipe, {"schedule.epochs": 2})
    with pytest.raises(ValueError, match=r"five.seed-0 has a run with other settings \(schedule.epochs: 1 there, 2"):
        ablate(longer, PAIR, out=tmp_path, progress_display="none")
    assert len(trainings) == 4


def test_a_wrong_option_is_found_before_the_first_training(
    recipe: Recipe, trainings: list[Path], tmp_path: Path
) -> None:
    pair = Ablation((Variant("fine", {}), Variant("wrong", {"model.options.topc": 9})))
    with pytest.raises(ValueError, match="variant 'wrong': .* no option 'topc', did you mean 'topk'"):
        ablate(recipe, pair, out=tmp_path, progress_display="none")
    assert not trainings


def test_runs_of_other_processes_are_left_to_them(recipe: Recipe, trainings: list[Path], tmp_path: Path) -> None:
    recipe = with_settings(recipe, {"data.workers": 0})
    with locked(tmp_path / "five" / "seed-0"):
        result = ablate(recipe, PAIR, out=tmp_path, progress_display="none")
    assert [one.state for one in result.states] == ["open", "done"]
    assert trainings[0] == tmp_path / "five" / "seed-0"  # tried, and refused by the lock
    assert result.exit_code == 1
    assert ablate(recipe, PAIR, out=tmp_path, progress_display="none").exit_code == 0


def test_a_run_that_breaks_is_told_and_the_others_go_on(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = engine_ablation.train

    def breaks(recipe: Recipe, **settings: object) -> RunResult:
        if "five" in str(settings["out"]):
            raise TrainingDiverged("loss 'cls' is not finite at step 0")
        return own(recipe, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_ablation, "train", breaks)
    reported: list[str] = []
    recipe = with_settings(recipe, {"data.workers": 0})
    result = ablate(recipe, PAIR, out=tmp_path, progress_display="none", report=reported.append)
    assert [one.state for one in result.states] == ["failed", "done"]
    assert result.exit_code == 1
    assert "failed: loss 'cls' is not finite at step 0" in reported
    assert result.markdown.read_text(encoding="utf-8").splitlines()[2] == "| five | - | - | - | - | - | - | - | 0 |"


def test_a_signal_ends_the_ablation_and_the_same_call_goes_on(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = engine_ablation.train
    recipe = with_settings(recipe, {"data.workers": 0})

    def stopped(recipe: Recipe, **settings: object) -> RunResult:
        return RunResult(Path(str(settings["out"])), {}, None, 0, "SIGTERM")

    monkeypatch.setattr(engine_ablation, "train", stopped)
    result = ablate(recipe, PAIR, out=tmp_path, progress_display="none")
    assert result.exit_code == 143
    assert [one.state for one in result.states] == ["open", "open"]
    monkeypatch.setattr(engine_ablation, "train", own)
    assert ablate(recipe, PAIR, out=tmp_path, progress_display="none").exit_code == 0


def test_means_and_spreads(tmp_path: Path) -> None:
    values = [0.101, 0.125, 0.14]
    runs = {
        ("a", seed): RunNumbers({"ap": value, "ap_small": float("nan")}, 0.5, 3) for seed, value in enumerate(values)
    }
    runs["b", 0] = RunNumbers({"ap": 0.25}, 1.0, 3)
    write_tables(tmp_path, ["a", "b", "c"], runs)
    table = rows(tmp_path / "table.csv")
    assert float(table[0]["ap"]) == pytest.approx(statistics.mean(values), abs=1e-5)
    assert float(table[0]["ap_std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
    assert (table[0]["ap_small"], table[1]["ap_std"], table[2]["ap"], table[2]["runs"]) == ("", "", "", "0")
    lines = markdown({"a": [run for (name, _), run in runs.items() if name == "a"]}).splitlines()
    assert lines[2] == "| a | 12.2 ± 2.0 | - | - | - | - | - | 0.50 ± 0.00 | 3 |"


def test_from_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "atss_r18_fpn", "--data", str(data), "--vary", "model.options.topk=5,9", "--epochs", "1"]
    words += ["--batch-size", "4", "--data.workers", "0", "--out", str(tmp_path / "table"), *TINY_MODEL]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| topk=5 | " in printed
    assert "2 of 2 runs done" in printed
    assert printed.endswith(f"{tmp_path / 'table' / 'table.csv'}\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "needs a table, model or recipe"),
        (["dw_r18_fpn", "--data", "x"], 2, "give the variants once"),
        (["libra_parts", "--data", "x", "--vary", "batch_size=4,8"], 2, "give the variants once"),
        (["dw_r18_fpn", "--data", "x", "--vary", "batch_size"], 2, "write SETTING=VALUE"),
        (["dw_r18_fpn", "--vary", "batch_size=4,8"], 2, "needs --data"),
        (["dw_r18_fpn", "--data", "x", "--vary", "batch_size=4", "--data.val", "none"], 2, "compares by validation"),
        (["dw_r18_fpm", "--data", "x", "--vary", "batch_size=4"], 1, "did you mean 'dw_r18_fpn'"),
        (["dw_r18_fpn", "--data", "x", "--vary", "data.batch_sze=4"], 1, "did you mean 'data.batch_size'"),
    ],
)
def test_wrong_words(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", *words]) == code
    assert message in capsys.readouterr().err


def test_the_list_of_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--list"]) == 0
    assert "dw_negative_weight" in capsys.readouterr().out
