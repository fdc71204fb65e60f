"""Predictions start without the compiler of PyTorch, which stays usable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from poise.cli.light_imports import _disable_when_called

CODE = """
import sys
from poise.cli import main
assert main(["predict", "demo", *sys.argv[1:]]) == 0
assert "timm" in sys.modules and "torchvision" in sys.modules
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
import torch, torchvision, timm.models.naflexvit
boxes, maps = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], torch.ones(1, 1, 8, 8)
torch.use_deterministic_algorithms(True)  # RoIAlign then asks the compiler
assert torchvision.ops.roi_align(maps, boxes, 2).shape == (1, 1, 2, 2)
assert torch.compiler.disable.__module__ == "torch.compiler"
"""


@pytest.mark.slow  # a process of its own
def test_predict_does_not_import_the_compiler(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "photo.png")
    words = [str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    run = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_functions_are_disabled_when_they_are_called() -> None:
    disabled: list[object] = []

    def disable(function: object, **options: object) -> object:
        disabled.append(options)
        return function

    double = _disable_when_called(disable, recursive=False)(lambda x: 2 * x)
    assert not disabled
    assert [double(3), double(4)] == [6, 8] and disabled == [{"recursive": False}]
