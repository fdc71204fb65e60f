"""``poise models`` and ``poise recipes`` say what the library knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import poise
from poise.cli import main
from poise.recipes import get_recipe, list_recipes, load_recipe


def test_models_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "atss_*"]) == 0
    assert capsys.readouterr().out.split() == poise.list_models("atss_*")


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == poise.list_models()


def test_recipes_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
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
