"""The worked examples of docs/extending.md: a package outside of poise, and poise's parts in torchvision's FCOS."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGE = EXAMPLES / "center_detectors"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_page_shows_the_examples_as_they_are(repository: Path) -> None:
    page = text_of(repository / "docs" / "extending.md")
    for path in (PACKAGE / "center_detectors.py", PACKAGE / "pyproject.toml", EXAMPLES / "torchvision_fcos.py"):
        assert text_of(path) in page, f"docs/extending.md shows {path.name} in another state"


def test_a_head_with_its_assigner_is_short() -> None:
    """Under 60 lines with imports and registration; torchvision's loss takes about ten statements."""
    lines = [line for line in text_of(PACKAGE / "center_detectors.py").splitlines() if line.strip()]
    assert len(lines) < 60
    function = next(
        n for n in ast.parse(text_of(EXAMPLES / "torchvision_fcos.py")).body if isinstance(n, ast.FunctionDef)
    )
    assert len(function.body) - 1 <= 10  # without the docstring


def torchvision_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torchvision_fcos", EXAMPLES / "torchvision_fcos.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_torchvisions_fcos_trains_with_parts_of_poise() -> None:
    torch.manual_seed(0)
    example = torchvision_example()
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=[2, 3, 4]
    )
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
    model = FCOS(backbone, num_classes=3, min_size=64, max_size=64, anchor_generator=anchors).train()
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    targets = [
        {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]]), "labels": torch.tensor([0, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    optimizer = torch.optim.SGD(model.parameters(), 2e-3)
    totals = []
    for _ in range(4):
        losses = example.losses(model, images, targets)
        assert set(losses) == {"loss_cls", "loss_bbox", "loss_centerness"}
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    assert set(model.eval()(images)[0]) == {"boxes", "scores", "labels"}


@pytest.mark.slow
def test_a_package_outside_of_poise_from_wheel_to_lab(tmp_path: Path) -> None:
    """Built as a wheel, installed by pip, found by its entry point in fresh processes, for every command."""
    shutil.copytree(PACKAGE, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    run = subprocess.run
    built = run(
        [*pip, "wheel", *offline, "--no-build-isolation", "-w", "wheels", "./source"], cwd=tmp_path, capture_output=True
    )
    assert built.returncode == 0, built.stderr.decode()
    wheel = next((tmp_path / "wheels").glob("*.whl"))
    run([*pip, "install", *offline, "--target", "site", wheel], cwd=tmp_path, check=True, capture_output=True)

    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    paths = [os.environ.get("PYTHONPATH", ""), str(tmp_path / "site")]
    with_package = {**plain, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    def poise(*words: str, environment: dict[str, str] = with_package, code: int = 0) -> str:
        command = [sys.executable, "-m", "poise", *words]
        done = run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    poise("demo-data", "data", "--train", "8", "--val", "4", "--size", "128")
    assert "center_r18_fpn (package center_detectors 0.1)" in poise("models", "center_r18*")
    assert "center_r18_quick (package center_detectors 0.1)" in poise("recipes", "center*")
    options = ["--model.options", "backbone", "test_resnet", "channels", "16", "depth", "1"]
    small = ["--image-size", "128", "--batch-size", "4", "--workers", "0", "--backbone-weights", "none", *options]
    chosen = ["--epochs", "1", "--assigner", "nearest_cells(topk=5)"]
    poise("train", "center_r18_quick", "--data", "data", "--out", "run", *small, *chosen)
    resumed = poise("train", "--resume", "--out", "run", "--epochs", "2")
    assert "schedule.epochs: 1 -> 2" in resumed and "2 epochs done" in resumed
    assert "ap" in json.loads(poise("eval", "run", "--data", "data", "--json").partition("\npoise: warning")[0])
    if importlib.util.find_spec("onnxruntime") is not None:
        assert "compared with PyTorch" in poise("export", "run")
    poise("lab", "show", "run", "--data", "data", "--images", "1", "--out", "lab.html")
    assert (tmp_path / "lab.html").stat().st_size > 10_000
    without = poise("eval", "run", "--data", "data", environment=plain, code=1)
    assert "written with center_detectors 0.1" in without and "poise --import center_detectors" in without
