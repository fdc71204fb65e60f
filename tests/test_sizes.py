"""Small files, short functions, plain names; and what must never be written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from sources import PACKAGE, ROOT, functions, module_name, python_files, short, tree

MOST_LINES = 300  # of a file, blank lines not counted; 320 with them would be two things
MOST_FUNCTION_LINES = 80
FORBIDDEN_STEMS = {"utils", "util", "misc", "common", "helpers", "helper", "tools"}
FORBIDDEN_CLASSES = re.compile(r"^_?Base[A-Z]|Manager$|Helper$")
FORBIDDEN_WORDS = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError|yaml\.load\(|extractall\(|weights_only=False")
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(work|tmp|opt|root|home)/|\.\./shared")
SHIPPED = ("src", "docs", "examples", "benchmarks", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")

every_file = pytest.mark.parametrize("path", python_files(), ids=module_name)


@every_file
def test_file_is_short(path: Path) -> None:
    lines = sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{short(path)} has {lines} lines: it is two things"


@every_file
def test_functions_are_short(path: Path) -> None:
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(path)}
    long = {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES}
    assert not long, f"{short(path)}: {long} lines"


@every_file
def test_names_say_what_they_are(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    assert not FORBIDDEN_STEMS & set(parts), f"{short(path)}: a room for anything is a room for nothing"
    classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if FORBIDDEN_CLASSES.search(name)]


@every_file
def test_nothing_is_unfinished_or_unsafe(path: Path) -> None:
    found = [
        f"{short(path)}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN_WORDS.search(line)
    ]
    assert not found


@every_file
def test_files_of_tensors_are_loaded_safely(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("weights_only") == "True", f"{short(path)}:{node.lineno} may run a file's code"


@every_file
def test_no_error_is_swallowed(path: Path) -> None:
    """A handler for every error must raise again."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node):
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises, f"{short(path)}:{node.lineno} swallows every error"


def _catches_everything(node: ast.ExceptHandler) -> bool:
    return node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")


def test_no_machine_paths_are_shipped() -> None:
    files = [path for name in SHIPPED for path in _text_files(ROOT / name)]
    assert len(files) > 20
    found = [
        f"{short(path)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".svg", ".txt"}
    return [p for p in sorted(path.rglob("*")) if p.suffix in suffixes and "__pycache__" not in p.parts]
