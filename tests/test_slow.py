"""The tests marked ``slow`` are those that docs/tests.md lists, with what the ordinary tests keep."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.sources import ROOT, python_files, short, tree


def marked(path: Path) -> set[str]:
    """Names of the tests of a file of which a case is marked."""
    text = path.read_text(encoding="utf-8")
    if "slow" not in text:
        return set()
    content, found = tree(path), set()
    of_module = [node.value for node in content.body if isinstance(node, ast.Assign) and "pytestmark" in ast.dump(node)]
    for node in content.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = " ".join(ast.unparse(mark) for mark in (*node.decorator_list, *of_module))
            if re.search(r"mark\.slow\b|\bslow_(but|if)\(", marks):
                found.add(f"{short(path)}::{node.name}")
    return found


def test_every_slow_test_is_listed_and_no_other() -> None:
    text = (ROOT / "docs" / "tests.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (tests/\S+::\w+) \|", text, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert set(listed) == set().union(*map(marked, python_files(ROOT / "tests")))
