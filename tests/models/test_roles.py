"""Auxiliary heads of Co-DETR evaluated by themselves, and removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import poise
from poise.cli import main
from poise.data.demo import write_demo_data
from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.models.roles import NoSuchHead, head_names, with_head, without_training_parts

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "queries": 12, "encoder_layers": 1}
SMALL |= {
    "decoder_layers": 2,
    "max_auxiliary_queries": 20,
    "backbone": "test_resnet",
    "region_hidden": 32,
    "regions": 16,
}


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    torch.manual_seed(0)
    built = create_model(
        "co_deformable_detr_r18", num_classes=8, image_size=64, **SMALL, auxiliary_heads="atss,faster_rcnn,atss"
    )
    return built.eval()


def test_detections_of_an_auxiliary_head(model: DetectionModel) -> None:
    assert head_names(model) == ("atss", "faster_rcnn", "atss2")
    network: Any = model.network
    pixels, sizes = torch.randn(2, 3, 64, 64), torch.full((2, 2), 64.0)
    for number, head in enumerate(head_names(model)):
        assert with_head(model, head).class_names == model.class_names
        expected = network.collaboration.predict(network.encode(pixels, sizes), sizes, number).unpad()
        for a, b in zip(with_head(model, head).detect(pixels), expected, strict=True):
            assert len(a["scores"]) and all(torch.equal(a[key], b[key]) for key in a)


def test_without_heads(model: DetectionModel) -> None:
    plain, pixels = without_training_parts(model), torch.randn(2, 3, 64, 64)
    assert plain.options["auxiliary_heads"] == "" and head_names(plain) == ()
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in model.parameters())
    for a, b in zip(model.detect(pixels), plain.detect(pixels), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    dense = create_model("atss_r18_fpn", num_classes=2, backbone="test_resnet")
    assert without_training_parts(dense) is dense


def test_heads_on_the_command_line(model: DetectionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, demo_data = tmp_path / "co.pt", write_demo_data(tmp_path / "scenes", train=1, val=2, size=64)
    poise.Detector(model).save(file)
    words = ["eval", str(file), "--data", str(demo_data), "--json", "--device", "cpu"]
    found = {}
    for head in ("", "atss", "faster_rcnn"):
        assert main([*words, *(["--head", head] if head else []), "--save-json", str(tmp_path / f"{head}.json")]) == 0
        found[head] = json.loads((tmp_path / f"{head}.json").read_text())
    assert found[""] != found["atss"] != found["faster_rcnn"]
    capsys.readouterr()
    assert main([*words, "--head", "fcos"]) == 1
    message = capsys.readouterr().err
    assert "no head 'fcos'" in message and "atss, faster_rcnn, atss2" in message and "Traceback" not in message


def test_a_model_without_auxiliary_heads_is_refused() -> None:
    plain = create_model("dino_r18", num_classes=2, channels=16, attention_heads=2, queries=4, backbone="test_resnet")
    with pytest.raises(NoSuchHead, match="co_dino_"):
        with_head(plain, "atss")
