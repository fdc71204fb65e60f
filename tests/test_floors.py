"""The floors of docs/architecture.md: a room imports lower floors only; rooms of one floor do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.sources import imported_modules, module_name, modules, python_files, short, tree

FLOORS = (
    (
        "boxes",
        "predictions",
        "structures",
        "protocols",
        "distributed",
        "storage",
        "preprocess",
        "draw",
        "fonts",
        "suggestions",
        "plugins",
        "version",
    ),
    ("losses", "pairwise", "similarities", "postprocess", "detection_model"),
    ("assign", "sample"),
    ("criteria", "nn"),
    ("branches", "detectors"),
    ("models",),
    ("recipes", "published"),
    ("data", "evaluate", "engine", "inference", "lab", "export"),
    ("api", "cli", "testing"),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

NEIGHBORS = {
    # floor 0: structures hold predictions
    ("structures", "predictions"),
    # floor 0: protocols are written in structures; a match names its criterion
    ("protocols", "structures"),
    ("structures", "protocols"),
    # floor 0: captions have fonts
    ("draw", "fonts"),
    # floor 1: NMS compares boxes by a similarity
    ("postprocess", "similarities"),
    # floor 4: a detector is built from branches
    ("detectors", "branches"),
    # floor 7: the engine feeds and validates
    ("engine", "data"),
    ("engine", "evaluate"),
    # floor 7: the lab reads matches while the engine trains
    ("engine", "lab"),
    # floor 7: inference reads images as the data room does, and writes results as the evaluation does
    ("inference", "data"),
    ("inference", "evaluate"),
    # floor 8: the command line calls the facade
    ("cli", "api"),
}


def room_of(module: str) -> str:
    """``assign`` of ``poise.assign.atss``; the front door ``poise`` itself is named so."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "poise"


def may_import(room: str, other: str) -> bool:
    """Whether a file of ``room`` may import one of ``other``."""
    if room in ("poise", "__main__"):
        return True
    if other == "poise":
        return False
    return other == room or FLOOR[other] < FLOOR[room] or (room, other) in NEIGHBORS


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room_of(module) for module in modules()} - {"poise", "__main__"}
    assert rooms <= set(FLOOR), f"put {sorted(rooms - set(FLOOR))} on a floor (docs/architecture.md and this test)"


def test_the_picture_and_the_page_show_every_room() -> None:
    """docs/images/rooms.svg and the table of docs/architecture.md name the rooms of each floor."""
    docs = Path(__file__).parents[1] / "docs"
    picture, page = (docs / "images" / "rooms.svg").read_text(), (docs / "architecture.md").read_text()
    for floor, rooms in enumerate(FLOORS):
        drawn = picture[picture.index(f">{floor}</text>") :].split('class="number"')[0]
        row = next(line for line in page.splitlines() if line.startswith(f"| {floor} |"))
        for room in set(rooms) - {"version"}:
            assert f">{room}/<" in drawn or f">{room}.py<" in drawn, (
                f"{room} is missing on floor {floor} of the picture"
            )
            assert f"`{room}/`" in row or f"`{room}.py`" in row, f"{room} is missing on floor {floor} of the page"


def test_imports_lead_downwards() -> None:
    wrong = [
        f"{short(path)}:{line} imports {module}"
        for path in python_files()
        for line, module in imported_modules(path)
        if not may_import(room_of(module_name(path)), room_of(module))
    ]
    assert not wrong, f"against the floors: {'; '.join(wrong)}"


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above cannot fail if the reader is blind; so it is shown each way to import."""
    lines = [
        "import poise.assign",
        "from poise import boxes",
        "from poise.nn.necks.ghost_pan import GhostPAN",
        "def f():",
    ]
    text = "\n".join([*lines, "    from . import losses"])
    path = tmp_path / "poise" / "criteria.py"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.setattr("support.sources.PACKAGE", path.parent)
    monkeypatch.setattr("support.sources.modules", lambda: {"poise.boxes", "poise.losses", "poise.nn.necks.ghost_pan"})
    assert [name for _, name in imported_modules(path)] == [
        "poise.assign",
        "poise.boxes",
        "poise.nn.necks.ghost_pan",
        "poise.losses",
    ]
    assert not may_import("assign", "nn")
    assert not may_import("nn", "criteria")
    assert not may_import("data", "engine")
    assert not may_import("data", "poise")
    assert may_import("engine", "data")


def test_heavy_packages_stay_out_of_light_rooms() -> None:
    """Floors 0 to 6 draw no curves, write no logs and parse no command lines."""
    heavy = {"matplotlib", "rich", "tyro", "tensorboard", "hotcoco", "supervision", "av"}
    for path in python_files():
        if FLOOR.get(room_of(module_name(path)), 9) > 6:
            continue
        found = {name for name in _top_level_packages(path) if name in heavy}
        assert not found, f"{short(path)} imports {sorted(found)}"


def _top_level_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
