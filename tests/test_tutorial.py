"""The tutorial: its commands run in the order of the page, and the notebook is the page."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import poise
from poise.cli import main

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"--train 120 --val 30": "--train 8 --val 4 --classes more_shapes", "--epochs 40": "--epochs 1"}


def notebook_of() -> Any:
    spec = importlib.util.spec_from_file_location("tutorial_notebook", ROOT / "examples" / "tutorial_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_page() -> None:
    module = notebook_of()
    text = module.NOTEBOOK.read_text(encoding="utf-8")
    assert text == module.notebook(module.PAGE.read_text(encoding="utf-8")), "run python examples/tutorial_notebook.py"
    cells = json.loads(text)["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    links = re.findall(r"\]\(([^)#\s]+)", "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"))
    assert not [link for link in links if not (ROOT / "examples" / link).exists()]
    if importlib.util.find_spec("nbformat"):
        import nbformat

        nbformat.validate(nbformat.reads(text, as_version=4))


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few images with the classes of the start weights, so that one epoch gives detections to compare."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    module = notebook_of()
    page = module.PAGE.read_text(encoding="utf-8")
    for words, smaller in SMALL.items():
        assert words in page
        page = page.replace(words, smaller)
    names: dict[str, Any] = {}
    for kind, text in module.cells(page):
        if kind == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "poise"
                assert main(words[1:]) == 0, line
        elif kind == "python":
            exec(compile(text, "tutorial", "exec"), names)
    assert all((tmp_path / name).is_file() for name in ("runs/photos/report.html", "lab.html", "detector.onnx"))
    assert len(list((tmp_path / "found").glob("*.jpg"))) == 4

    detected = poise.Detector("runs/photos", "cpu").predict("photos/val/000001.jpg", score_threshold=0.3)[0]
    assert names["detections"], "nothing to compare"
    assert sorted(name for name, _, _ in names["detections"]) == sorted(detected.names)
    expected = dict(
        zip(detected.names, zip(detected.boxes.xyxy.tolist(), detected.scores.tolist(), strict=True), strict=True)
    )
    for name, score, box in names["detections"]:  # resized by another library, and padded to the size of the file
        assert box == pytest.approx(expected[name][0], abs=8.0)
        assert score == pytest.approx(expected[name][1], abs=0.05)
