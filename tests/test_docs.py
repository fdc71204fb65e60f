"""Pages, links and code blocks of docs/ and the README: they lead somewhere, compile, and name options that exist."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poise.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S)
LINK = re.compile(r"!?\[[^]]*\]\((?P<target>[^)\s]+)\)")


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found in FENCE.finditer(page.read_text(encoding="utf-8")):
            if found["language"] == language:
                yield page, found["code"]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in (found["target"] for found in LINK.finditer(text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}, which has no such heading"


def test_every_page_is_found_from_the_first_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index]
    assert not missing
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.glob("*.md") if f": {page.name}\n" not in navigation]


def test_files_named_in_the_architecture_exist() -> None:
    named = re.findall(
        r"`((?:src/|tests/|docs/|benchmarks/)?[\w/]+(?:\.py|/))`", (DOCS / "architecture.md").read_text()
    )
    assert len(named) > 20
    missing = [name for name in named if not any((ROOT / part / name).exists() for part in ("", "src/poise"))]
    assert not missing


@pytest.mark.parametrize(
    "page, code", [pytest.param(*one, id=f"{one[0].stem}{i}") for i, one in enumerate(blocks("python"))]
)
def test_python_blocks_compile_and_import_what_exists(page: Path, code: str) -> None:
    tree = ast.parse(re.sub(r"^( *)…$", r"\1...", code, flags=re.M), str(page))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "poise":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page.name}: {node.module} has no {alias.name}"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `poise …` line of a code block, fenced or indented, as words; brackets of optional parts are dropped."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        for line in lines:
            found = re.match(r"(?:    )?poise ([a-z-]+)", line)
            if found and found[1] in COMMANDS:
                yield page.name, shlex.split(re.sub(r"[][|]", " ", line), comments=True)[1:]


@pytest.mark.slow
def test_commands_name_options_that_exist() -> None:
    """Options of the commands in shell blocks stand in the command's help, or are settings of a recipe."""
    found = list(commands())
    assert len(found) > 20
    helps: dict[str, str] = {}
    for page, words in found:
        command = " ".join(words[:2]) if words[0] in ("lab", "weights") else words[0]
        if command not in helps:
            run = [sys.executable, "-m", "poise", *command.split(), "--help-all"]
            shown = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
            assert shown.returncode == 0, shown.stderr
            helps[command] = shown.stdout + shown.stderr
        for word in words:
            if word.startswith("--") and "." not in word:
                option = word.split("=")[0]
                assert re.search(rf"{option}\b", helps[command]), f"{page}: poise {' '.join(words)}: no option {option}"


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs: pip install poise[docs]")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "poise.api.Detector" in reference and "ATSS" in reference
    outside = re.findall(r"(?:href|src)=\"(https?://[^\"]+\.(?:css|js|woff2?))\"", reference)
    assert not outside, f"the site loads from elsewhere: {outside}"
