"""Fast R-CNN by its name: proposals of another model, training, evaluation, and the message without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.api import Detector
from poise.cli import main
from poise.data import open_data
from poise.models import create_model
from poise.models.files import load_model, save_model

SMALL: dict[str, Any] = {"backbone": "test_byobnet", "channels": 16, "hidden": 32}
OPTIONS = "--model.options backbone test_byobnet channels 16 hidden 32 regions 32".split()
SETTINGS = "--model.backbone-weights none --image-size 96 --epochs 1 --batch-size 4 --workers 0 --device cpu".split()


@pytest.fixture(scope="module")
def proposals(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of each split, written by the command from a Faster R-CNN's first stage."""
    folder = tmp_path_factory.mktemp("proposals")
    torch.manual_seed(0)
    classes = len(open_data(demo_data, "train").class_names)
    sister = create_model("faster_rcnn_r18_fpn", classes, image_size=96, proposals=60, **SMALL)
    save_model(sister, folder / "sister.pt")
    for split in ("train", "val"):
        words = ["eval", str(folder / "sister.pt"), "--data", str(demo_data), "--split", split, "--batch-size", "1"]
        assert main([*words, "--save-proposals", str(folder / f"{split}.json")]) == 0
    return {"sister": folder / "sister.pt", "train": folder / "train.json", "val": folder / "val.json"}


@pytest.fixture(scope="module")
def trained_on_proposals(demo_data: Path, proposals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "fast"
    files = ["--data.proposals", str(proposals["train"]), "--data.val-proposals", str(proposals["val"])]
    words = ["train", "fast_rcnn_r18_fpn", "--data", str(demo_data), "--out", str(out), "--data.proposals-limit", "50"]
    assert main([*words, *files, *SETTINGS, *OPTIONS]) == 0
    return out


def test_saved_proposals_are_the_first_stages_in_original_pixels(
    demo_data: Path, proposals: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    written = json.loads(proposals["val"].read_text())
    images = open_data(demo_data, "val")
    model = load_model(proposals["sister"])
    for record in images:
        own = torch.tensor([one["bbox"] for one in written if one["image_id"] == record.id])
        prepare = model.preprocess
        pixels, sizes = prepare.batch([prepare.normalize(prepare.resize(images.read(record.index)))])
        with torch.no_grad():
            found = model.network.propose(pixels, sizes)
        factors = torch.tensor([record.width, record.height]) / sizes[0].flip(0)
        corners = found.boxes[0][found.valid[0]] * factors.repeat(2)
        corners[:, 2:] -= corners[:, :2]
        assert len(own) == min(60, len(corners))
        torch.testing.assert_close(own, corners, atol=2e-3, rtol=1e-3)
    assert {one["category_id"] for one in written} == {1}
    words = ["eval", str(proposals["sister"]), "--data", str(demo_data), "--batch-size", "1", "--json"]
    assert main([*words, "--save-proposals", str(proposals["val"]) + ".again"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["proposals"] == len(written) and 0 <= output["recall_50_95"] <= output["recall_50"] <= 1
    assert Path(str(proposals["val"]) + ".again").read_text() == proposals["val"].read_text()


def test_trains_and_evaluates(
    demo_data: Path, proposals: dict[str, Path], trained_on_proposals: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [
        "eval",
        str(trained_on_proposals),
        "--data",
        str(demo_data),
        "--proposals",
        str(proposals["val"]),
        "--json",
    ]
    assert main([*words, "--proposals-limit", "50", "--save-json", str(tmp_path / "found.json")]) == 0
    numbers = json.loads(capsys.readouterr().out)
    with (trained_on_proposals / "results.csv").open() as file:
        header, row = (line.strip().split(",") for line in file)
    assert float(dict(zip(header, row, strict=True))["val/ap"]) == pytest.approx(numbers["ap"], abs=1e-6)
    assert Detector(trained_on_proposals, "cpu").val(demo_data, proposals=proposals["val"]).images == 4


def test_resumes_with_its_proposals(demo_data: Path, trained_on_proposals: Path) -> None:
    assert main(["train", "--resume", "--out", str(trained_on_proposals), "--device", "cpu"]) == 0


@pytest.mark.parametrize("command", ["train", "eval", "predict"])
def test_without_proposals_the_cure_is_named(
    command: str, demo_data: Path, trained_on_proposals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, data = str(trained_on_proposals), ["--data", str(demo_data)]
    words = {
        "train": ["fast_rcnn_r18_fpn", *data, "--out", str(tmp_path / "run"), *SETTINGS, *OPTIONS],
        "eval": [checkpoint, *data],
        "predict": [checkpoint, str(open_data(demo_data, "val").path(0)), "--out", str(tmp_path)],
    }
    capsys.readouterr()
    assert main([command, *words[command]]) == 1
    output = capsys.readouterr().err
    assert "propos" in output and "--proposals FILE" in output


def test_a_model_that_proposes_refuses_a_file(
    demo_data: Path, proposals: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(proposals["sister"]), "--data", str(demo_data), "--proposals", str(proposals["val"])]
    assert main(words) == 1
    assert "does not use proposals" in capsys.readouterr().err


def test_python_call_with_proposals() -> None:
    torch.manual_seed(0)
    model = create_model("fast_rcnn_r18_fpn", 2, image_size=96, **SMALL)
    images = [torch.rand(3, 60, 120), torch.rand(3, 96, 48)]
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])}] * 2
    boxes = [torch.tensor([[4.0, 4.0, 42.0, 50.0], [60.0, 10.0, 110.0, 50.0]]), torch.zeros(0, 4)]
    losses = model.train()(images, targets, boxes)
    assert isinstance(losses, dict) and all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    found = model.eval()(images, proposals=boxes)
    assert len(found) == 2 and len(found[1]["scores"]) == 0
    with pytest.raises(ValueError, match="2 images but 1 proposals"):
        model(images, proposals=boxes[:1])
    with pytest.raises(ValueError, match="use a model with a region proposal network"):
        model(images)
