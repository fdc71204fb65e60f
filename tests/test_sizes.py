"""Small files, short functions, plain names; and what must never be written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.sources import PACKAGE, ROOT, FunctionNode, functions, python_files, short, tree

MOST_LINES = 300  # of a file, blank lines not counted; 320 with them would be two things
MOST_FUNCTION_LINES = 80
FORBIDDEN_STEMS = {"utils", "util", "misc", "common", "helpers", "helper", "tools"}
FORBIDDEN_CLASSES = re.compile(r"^_?Base[A-Z]|Manager$|Helper$")
FORBIDDEN_WORDS = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError|yaml\.load\(|extractall\(|weights_only=False")
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(work|tmp|opt|root|home)/|\.\./shared")
LOADERS = ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler")
SHIPPED = ("src", "docs", "examples", "benchmarks", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")

FILES = python_files()


def test_files_are_short() -> None:
    sizes = {short(path): sum(bool(line.strip()) for line in _lines(path)) for path in FILES}
    long = {name: size for name, size in sizes.items() if size > MOST_LINES}
    assert not long, f"these are two things each: {long}"


def test_functions_are_short() -> None:
    sizes = {f"{short(path)}:{node.name}": _length(node) for path in FILES for node in functions(path)}
    long = {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES}
    assert not long, f"more than {MOST_FUNCTION_LINES} lines: {long}"


MOST_POSITIONAL = 4
FOREIGN = {  # functions whose arguments torch, torchvision, urllib or ``functools.partial`` passes by position
    *("forward", "read_regions", "roi_align_levels", "deform", "deform_conv_in_bags", "plain_deform_conv2d"),
    *("sample_levels_backward", "redirect_request", "read"),
    "add",  # a row of a table
}


def test_further_arguments_are_given_by_name() -> None:
    """A call of a public function with more than four arguments can be read without the function."""
    found = {}
    for path in FILES:
        for node in functions(path):
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args) if one.arg not in ("self", "cls")]
            public = node.name == "__init__" or not node.name.startswith("_")
            if public and node.name not in FOREIGN and len(names) > MOST_POSITIONAL:
                found[f"{short(path)}:{node.name}"] = names
    assert not found, f"write * after the {MOST_POSITIONAL}th argument: {found}"


def test_names_say_what_they_are() -> None:
    rooms = [path for path in FILES if FORBIDDEN_STEMS & set(path.relative_to(PACKAGE).with_suffix("").parts)]
    assert not rooms, "a room for anything is a room for nothing"
    classes = [node.name for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert len(classes) > 20
    assert not [name for name in classes if FORBIDDEN_CLASSES.search(name)]


def test_nothing_is_unfinished_or_unsafe() -> None:
    assert not _found(FILES, FORBIDDEN_WORDS)


def test_files_of_tensors_are_loaded_safely() -> None:
    """``torch.load`` only with ``weights_only=True``, and never ``pickle``."""
    calls = [(path, node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    loads = [(path, node) for path, node in calls if ast.unparse(node.func) in LOADERS]
    assert loads
    for path, node in loads:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("weights_only") == "True", f"{short(path)}:{node.lineno} may run a file's code"


MAY_GO_ON = ("src/poise/plugins.py",)  # the package of someone else is broken: it is named, and everything else works


def test_no_error_is_swallowed() -> None:
    """A handler for every error must raise again."""
    handlers = [(path, node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    for path, node in handlers:
        everything = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        assert raises or not everything or short(path) in MAY_GO_ON, f"{short(path)}:{node.lineno} swallows every error"


def test_no_machine_paths_are_shipped() -> None:
    files = [path for name in SHIPPED for path in _text_files(ROOT / name)]
    assert len(files) > 20
    assert not _found(files, MACHINE_PATH)


def _found(files: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """Every line that matches, with file and number."""
    numbered = ((path, number, line) for path in files for number, line in enumerate(_lines(path), 1))
    return [f"{short(path)}:{number}: {line.strip()}" for path, number, line in numbered if pattern.search(line)]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _length(node: FunctionNode) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".svg", ".txt"}
    return [p for p in sorted(path.rglob("*")) if p.suffix in suffixes and "__pycache__" not in p.parts]
