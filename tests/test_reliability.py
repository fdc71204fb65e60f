"""Every test that docs/reliability.md names for a guarantee exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def test_each_guarantee_names_tests_that_exist(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "::" in line]
    assert len(lines) > 60 and len(set(re.findall(r"^## (\d)\.", text, re.MULTILINE))) == 8
    named = {found for line in lines for found in TEST.findall(line)}
    missing = [f"{file}::{name}" for file, name in sorted(named) if name not in functions(repository / file)]
    assert not missing


def test_each_line_of_a_guarantee_names_a_test(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    tables = text.split("## Long experiments")[0].split("| guarantee | test |\n|---|---|\n")[1:]
    assert len(tables) == 8
    for table in tables:
        for line in table.split("\n\n")[0].splitlines():
            assert TEST.search(line), line


def test_the_scripts_of_the_long_experiments_exist(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    scripts = set(re.findall(r"benchmarks/\w+\.py", text))
    assert len(scripts) >= 4 and all((repository / script).is_file() for script in scripts)


def functions(path: Path) -> set[str]:
    """Names of the tests of a file."""
    content = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in content.body if isinstance(node, ast.FunctionDef)}
