"""docs/from_mmdetection.md: the models, recipes, settings and parts that it names exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import poise
from poise.recipes import Recipe, list_recipes
from poise.recipes.convert import setting_paths

PAGE = (Path(__file__).parents[1] / "docs" / "from_mmdetection.md").read_text(encoding="utf-8")


def rows(header: str) -> list[list[str]]:
    """The cells of the table with this header."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_models_and_recipes_exist() -> None:
    table = rows("| folder of `configs/` | models | recipes |")
    assert len(table) == 19
    for _, models, recipes in table:
        assert set(re.findall(r"`(\w+)`", models)) <= set(poise.list_models())
        assert set(re.findall(r"`(\w+)`", recipes)) <= set(list_recipes())


def test_settings_exist() -> None:
    known = set(setting_paths(Recipe))
    named = re.findall(r"`((?:model|data|augment|optimizer|schedule|train|evaluate)\.\w+)`", PAGE)
    assert len(set(named)) > 20
    assert set(named) - known <= {"model.preprocess"}


def test_parts_exist() -> None:
    header = "| MMDetection | poise |\n|---|---|\n| `mmdet/models/task_modules/assigners`"
    rooms = ("assign", "sample", "sample.sampler", "losses", "criteria", "nn.necks.feature_pyramids")
    rooms += ("nn.transformer.tokens", "structures", "nn.heads", "detectors", "models", "boxes", "engine.train")
    modules = [poise, *(importlib.import_module(f"poise.{room}") for room in rooms)]
    for _, ours in rows(header):
        for name in re.findall(r"`([\w.]+)`", ours):
            if name.startswith("poise."):
                head, _, last = name.rpartition(".")
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError:
                    assert hasattr(importlib.import_module(head), last), name
            else:
                assert any(hasattr(module, name) for module in modules), name
