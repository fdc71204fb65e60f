"""benchmarks/gpu.py: the rehearsal of every part on a CPU, errors and time limits, and the report."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.sources import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
PEERS = {"detr_against_transformers": "transformers"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, env=variables)


@pytest.mark.slow
def test_every_part_is_rehearsed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    result = run("--rehearse", "--out", str(out), "--minutes", "60")
    assert result.returncode == 0, result.stderr[-2000:]
    content = json.loads(out.read_text())
    failed = {name: part["error"] for name, part in content["parts"].items() if "error" in part}
    for part, package in PEERS.items():
        if importlib.util.find_spec(package) is None:
            assert package in failed.pop(part)
    assert not failed
    assert len(content["parts"]) >= 12 and content["rehearsal"]
    found = run("--report", str(out)).stdout
    assert all(name.replace("_", " ").capitalize() in found for name in content["parts"])
    assert "says nothing" in found or "say nothing" in found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def test_a_part_that_raises_is_recorded_and_the_rest_goes_on(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = importlib.import_module("gpu_parts")

    def broken(setting: Any) -> Any:
        raise ZeroDivisionError("deliberate")

    def good(setting: Any) -> Any:
        """Count."""
        return [{"case": "one", "poise_ms": 1.25}, {"case": "two", "other": "text"}]

    monkeypatch.setattr(parts, "PARTS", {"broken": broken, "good": good, "late": good})
    out = tmp_path / "gpu.json"
    assert gpu.run(out, ["broken", "good"], float("inf"), rehearse=True) == 0
    assert gpu.run(out, ["broken", "good", "late"], 0.0, rehearse=True) == 0
    content = json.loads(out.read_text())
    assert "deliberate" in content["parts"]["broken"]["error"]
    assert content["parts"]["good"]["rows"][0] == {"case": "one", "poise_ms": 1.25}
    assert content["parts"]["late"] == {"skipped": "no time left"}
    table = gpu.tables(content)
    assert "| case | poise_ms | other |" in table and "| one | 1.25 |  |" in table and "deliberate" in table


def test_an_error_of_the_device_gives_the_process_up(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = importlib.import_module("gpu_parts")

    def lost(setting: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(parts, "PARTS", {"lost": lost, "next": lambda setting: [{"case": "fine"}]})
    out = tmp_path / "gpu.json"
    assert gpu.run(out, ["lost", "next"], float("inf"), rehearse=True) == 3
    assert gpu.run(out, ["lost", "next"], float("inf"), rehearse=True) == 0
    assert json.loads(out.read_text())["parts"]["next"]["rows"] == [{"case": "fine"}]


def test_the_report_goes_between_the_marks_of_the_page(gpu: Any, tmp_path: Path) -> None:
    content = {
        "machine": {"gpu": "a GPU", "cores": 4},
        "versions": {"torch": "2.10"},
        "date": "2026-01-02T",
        "parts": {},
    }
    source, page = tmp_path / "gpu.json", tmp_path / "page.md"
    source.write_text(json.dumps(content | {"rehearsal": False}))
    page.write_text(f"above\n{gpu.MARKS[0]}\nold\n{gpu.MARKS[1]}\nbelow\n")
    gpu.report(source, page)
    text = page.read_text()
    assert (
        text.startswith("above\n") and text.endswith("\nbelow\n") and "a GPU, 4 CPU cores" in text and "old" not in text
    )
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no lines"):
        gpu.report(source, page)
    assert all(mark in (ROOT / "docs" / "benchmarks.md").read_text() for mark in gpu.MARKS)
