"""Several data sets and a class map from the command line: train, resume, eval, compare, lab, check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny import TINY_MODEL
from support.write_data import coco_content, write_coco, write_yolo

import poise
from poise.cli import main
from poise.engine import train
from poise.recipes import load_recipe, with_settings

MAP = ["--class-map", "cat", "animal", "Dog", "animal", "horse", "null"]
QUICK = [
    "--epochs",
    "1",
    "--batch-size",
    "4",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--score-threshold",
    "0.001",
    *TINY_MODEL,
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("several")
    write_coco(root / "one", coco_content(4))
    write_coco(root / "one", coco_content(2), split="val", shade=90)
    line = " 0.5 0.5 0.4 0.4"
    write_yolo(root / "two", {name: f"{i % 2}{line}" for i, name in enumerate("abcdef")}, "[cat, horse]")
    return ["--data", str(root / "one"), "--data", str(root / "two")]


@pytest.fixture(scope="module")
def run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "joined"
    words = ["train", "atss_r18_fpn", *data, *MAP, "--data.val-share", "0.34", "--out", str(out), *QUICK]
    assert main(words) == 0
    return out


def test_a_run_knows_its_data_sets_and_map(run: Path, data: list[str]) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["data"] == "one + two" and [one["name"] for one in record["sources"]] == ["one", "two"]
    assert record["sources"][1]["train"] == {"split": "train", "images": 4} and record["val"]["images"] == 4
    held = (run / "val_images.txt").read_text().splitlines()
    assert sorted(name.partition("/")[0] for name in held) == ["one", "one", "two", "two"]
    model = poise.load(run)
    assert model.class_names == ("animal",) and model.class_map == {"cat": "animal", "Dog": "animal", "horse": None}
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.data.paths == (data[1], data[3])


def test_commands_use_the_map_of_the_run(
    run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    assert main(["eval", str(run), *data, "--json", "--save-json", str(found), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)
    assert [one["name"] for one in metrics["classes"]] == ["animal"] and metrics["counts"]["images"] == 4
    assert "two: using the 2 images" in printed.err
    assert {"source", "source_id", "category"} <= json.loads(found.read_text())[0].keys()
    assert metrics["ap"] == poise.Detector(run, device="cpu").val([data[1], data[3]]).metrics.ap
    own = json.loads((run / "metrics.json").read_text())
    assert metrics["ap"] == own["ap"], "the images and classes are those of the validation"

    assert main(["eval", str(run), *data, "--class-map", "cats", "animal"]) == 1
    assert "no class 'cats', did you mean 'cat'" in capsys.readouterr().err
    out = str(tmp_path / "compare")
    words = ["compare", str(run), str(run / "last.pt"), *data, "--draws", "3", "--device", "cpu", "--out", out]
    assert main([*words, "--follow-links"]) == 0
    comparison = json.loads((tmp_path / "compare" / "comparison.json").read_text())
    assert len(comparison["images"]) == 4 and [one["name"] for one in comparison["classes"]] == ["animal"]
    assert main(["lab", "stats", str(run), *data, "--device", "cpu", "--out", str(tmp_path / "lab")]) == 0
    stages = json.loads((tmp_path / "lab" / "stats.json").read_text())["stages"]
    assert stages[0]["images"] == 4


def test_models_of_different_maps_are_compared_by_a_given_one(
    run: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = poise.Detector(poise.load(run), device="cpu")
    other.model.class_map = {}
    words = ["compare", str(run), str(other.save(tmp_path / "other.pt")), *data[:2], "--draws", "2", "--device", "cpu"]
    assert main(words) == 1 and "different class maps" in capsys.readouterr().err
    assert main([*words, *MAP[:5], "--out", str(tmp_path / "out")]) == 0


def test_a_resumed_run_keeps_its_map_and_says_what_changed(
    run: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = with_settings(load_recipe(run / "recipe.yaml"), {"data.classes": {}, "schedule.epochs": 2})
    result = train(recipe, data=[data[3], data[1]], out=run, resume=True, device="cpu", progress_display="plain")
    assert result.finished and poise.load(result.last).class_names == ("animal",)
    printed = capsys.readouterr()
    assert "warning: the data are not those with which the run began" in printed.out + printed.err


def test_check_joins(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", data[1], data[3], "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["data_sets"]) == 2 and "two does not annotate Dog" in report["joined"]["warnings"][1]
