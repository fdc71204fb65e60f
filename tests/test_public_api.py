"""The public names: they exist, they are listed, they are explained, and reaching them costs little."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.sources import PACKAGE, module_name, python_files, short, tree

import poise

CONTRACT = {"create_model", "list_models", "load", "load_published", "save", "Detector", "__version__"}
NOUNS = {"GroundTruth", "Batch", "Progress", "Priors", "Predictions", "Assignment", "PairWeights", "Sample", "Match"}
NOUNS |= {"StepOutput", "Detections"}


def test_the_contract_is_public() -> None:
    assert CONTRACT | NOUNS <= set(poise.__all__)
    assert set(poise.__all__) <= set(dir(poise))


@pytest.mark.parametrize("name", sorted(poise.__all__))
def test_public_name_is_there(name: str) -> None:
    value = getattr(poise, name)
    if name != "__version__":
        assert value.__doc__


def test_unknown_name_is_an_attribute_error_with_a_suggestion() -> None:
    with pytest.raises(AttributeError, match="create_model"):
        _ = poise.create_modle  # type: ignore[attr-defined]


def test_all_lists_only_what_exists() -> None:
    """Read from the source: every name of ``__all__`` is bound in its module (or served by its ``__getattr__``)."""
    for path in python_files():
        listed = _listed_names(path) or []
        bound = {name for node in tree(path).body for name in _bound_names(node)}
        missing = [] if "__getattr__" in bound else [name for name in listed if name not in bound]
        assert not missing, f"{short(path)}: __all__ lists {missing}"
        assert len(set(listed)) == len(listed), f"{short(path)}: __all__ lists a name twice"


def test_what_is_public_is_explained() -> None:
    """Modules, public classes and public functions; a function of two statements speaks for itself."""
    silent = [short(path) for path in python_files() if tree(path).body and not ast.get_docstring(tree(path))]
    silent += [
        f"{short(path)}:{node.name}"
        for path in python_files()
        for node in tree(path).body
        if _needs_docstring(node) and not ast.get_docstring(node)
    ]
    assert not silent, "no docstring"


def _needs_docstring(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return not node.name.startswith("_")
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and len(node.body) > 2


def _listed_names(path: Path) -> list[str] | None:
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            items = getattr(node.value, "elts", [])
            return [ast.literal_eval(item) for item in items if isinstance(item, ast.Constant)]
    return None


def _bound_names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target)]
    return []


def test_importing_poise_is_light() -> None:
    """``import poise`` alone loads neither torch nor any room."""
    code = "import sys, poise; print([m for m in sys.modules if m in ('torch', 'timm') or m.startswith('poise.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {"poise.version"}


def test_every_module_can_be_imported_alone() -> None:
    for path in python_files():
        if path.name != "__main__.py":
            importlib.import_module(module_name(path))


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
