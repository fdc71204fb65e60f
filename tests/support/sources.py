"""The source files of poise as the structural tests read them: text and syntax trees, nothing imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "poise"

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(folder: Path = PACKAGE) -> list[Path]:
    """Every Python file below ``folder``, sorted."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    """A file's path for messages, from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """``poise.assign.atss`` of ``src/poise/assign/atss.py``."""
    parts = ("poise", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> set[str]:
    """Every module and package of poise."""
    return {module_name(path) for path in python_files()}


def functions(path: Path) -> Iterator[FunctionNode]:
    """Every function and method of a file, nested ones too."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, FunctionNode))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module of poise that a file imports anywhere, inside functions too."""
    known = modules()
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "poise")
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, package)
            if source.split(".")[0] == "poise":
                names = (f"{source}.{alias.name}" for alias in node.names)
                yield from ((node.lineno, name if name in known else source) for name in names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])
