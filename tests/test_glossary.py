"""docs/glossary.md: every name exists, and the terms of the articles stand in the sources of what they name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from poise.cli import lab, measurements

PAGE = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8")
FIRST = PAGE[PAGE.index("| term | meaning") : PAGE.index("## Terms of the field")].strip().splitlines()[2:]
WORDS = re.compile(r"[\w-]+")
ELSEWHERE = {"anchor", "label assignment", "positive weight", "one-to-one"}  # words of the whole library


def resolve(name: str) -> tuple[ModuleType, object]:
    """The module of a dotted name and what it names there."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        value: object = module
        for part in parts[end:]:
            value = getattr(value, part)
        return module, value
    raise AssertionError(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(poise\.[\w.]+)`", PAGE))))
def test_names_exist(name: str) -> None:
    module, value = resolve(name)
    assert value is not None and module.__name__.startswith("poise")


def test_commands_exist() -> None:
    commands = set(re.findall(r"`poise lab (\w+)`", PAGE))
    assert commands and commands <= {*lab.COMMANDS, "assign", *measurements.MEASUREMENTS}


def test_terms_stand_in_the_sources_of_what_they_name() -> None:
    assert len(FIRST) > 25
    for line in FIRST:
        term, _, ours = (cell.strip() for cell in line.strip("|").split(" | "))
        names = re.findall(r"`(poise\.[\w.]+)`", ours)
        first = re.split(r"[,(:]", term)[0].strip().lower()
        if first in ELSEWHERE:
            continue
        owners = [getattr(value, "__module__", module.__name__) for module, value in map(resolve, names)]
        texts = [Path(str(importlib.import_module(owner).__file__)).read_text(encoding="utf-8") for owner in owners]
        words = " ".join(" ".join(texts).lower().split())
        assert first in words, f"'{first}' is not in {', '.join(owners)}"
