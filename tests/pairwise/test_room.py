"""``pairwise`` is the one room that knows how pairs are stored, chunked and computed on a device."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support.sources import PACKAGE, imported_modules, module_name, python_files, short, tree

MOST_LINES = 900
ROOM = PACKAGE / "pairwise"
OTHERS = [path for path in python_files() if ROOM not in path.parents]
SUBMODULES = {"poise.pairwise.stored_pairs"}  # RoIAlign calls a function of it by its full name, which tests replace
STORAGES = {"DensePairs", "SparsePairs", "plane_elements", "CACHED_ELEMENTS", "PLANE_ELEMENTS"}
DEVICE = re.compile(r"\.is_cuda\b|\.is_cpu\b|device\.type\s*[!=]=|is_compiling\(|isinstance\([^)]*Pairs\)")


def test_the_room_is_small() -> None:
    lines = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(ROOM)}
    assert len(lines) > 2 and sum(lines.values()) <= MOST_LINES, lines


@pytest.mark.parametrize("path", OTHERS, ids=module_name)
def test_other_rooms_import_the_interface_only(path: Path) -> None:
    inner = {name for _, name in imported_modules(path) if name.startswith("poise.pairwise.")}
    assert inner <= SUBMODULES
    names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    assert not names & STORAGES


@pytest.mark.parametrize("room", ["assign", "criteria"])
def test_assigners_and_criteria_ask_for_no_device(room: str) -> None:
    files = python_files(PACKAGE / room)
    assert len(files) > 5
    found = {short(path): DEVICE.findall(path.read_text(encoding="utf-8")) for path in files}
    assert not {path: lines for path, lines in found.items() if lines}
    assert DEVICE.search("if boxes.device.type == 'cpu':") and DEVICE.search("isinstance(pairs, DensePairs)")
