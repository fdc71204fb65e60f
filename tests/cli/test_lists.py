"""``poise models`` and ``poise recipes`` say what the library knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import poise
from poise.cli import main
from poise.cli.models import START
from poise.published.table import checkpoints
from poise.recipes import get_recipe, list_recipes, load_recipe


def test_models_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "atss_*", "--names"]) == 0
    assert capsys.readouterr().out.split() == poise.list_models("atss_*")
    assert main(["models", "atss_*"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "name" and [line.split()[0] for line in lines] == poise.list_models("atss_*")
    assert next(line for line in lines if line.startswith("atss_r50_fpn ")).split()[-2:] == ["39.4", "coco"]


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == poise.list_models()
    assert {row["start_here"] for row in rows} == {None, *START}
    for row in rows:
        assert row["parameters_m"] > 0 and row["gflops"] > 0 and len(row["image_size"]) == 2
        assert (row["published_ap"] is None) == (not row["weights"])


def test_models_begin_with_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "start here"
    assert all(line.split(":")[0].endswith(f"  {name}") for line, name in zip(lines[1:], START.values(), strict=False))
    published = [one.box_ap for one in checkpoints()]
    assert f"published AP {max(published)}" in lines[3], "best accuracy is the best published"


def test_recipes_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    start, empty, *lines = capsys.readouterr().out.splitlines()
    assert start.startswith("start here on a CPU") and start.endswith(": small_data") and not empty
    assert [line.split()[0] for line in lines] == list_recipes()
    assert all(len(line.split()) > 3 for line in lines)


def test_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "fcos_*", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list_recipes("fcos_*")


@pytest.mark.parametrize("name", ["atss_r50_fpn_1x", "atss_r18_fpn"])
def test_a_recipe_that_is_shown_can_be_loaded_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", name, "--show"]) == 0
    path = tmp_path / "recipe.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(path) == get_recipe(name)
