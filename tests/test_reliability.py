"""Every test that docs/reliability.md names for a promise is there to be run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def test_each_promise_names_tests_that_exist(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if line.startswith("| ") and "::" in line]
    assert len(promises) > 60 and len(set(re.findall(r"^## (\d)\.", text, re.MULTILINE))) == 8
    named = {found for line in promises for found in TEST.findall(line)}
    missing = [f"{file}::{name}" for file, name in sorted(named) if name not in functions(repository / file)]
    assert not missing


def test_each_line_of_a_promise_names_a_test(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    tables = text.split("## The long proofs")[0].split("| promise | test |\n|---|---|\n")[1:]
    assert len(tables) == 8
    for table in tables:
        for line in table.split("\n\n")[0].splitlines():
            assert TEST.search(line), line


def test_the_scripts_of_the_long_proofs_exist(repository: Path) -> None:
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    scripts = set(re.findall(r"benchmarks/\w+\.py", text))
    assert len(scripts) >= 4 and all((repository / script).is_file() for script in scripts)


def functions(path: Path) -> set[str]:
    """Names of the tests of a file."""
    content = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in content.body if isinstance(node, ast.FunctionDef)}
