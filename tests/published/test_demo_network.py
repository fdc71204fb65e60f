"""The network inside the package: its file, what it detects, and the word ``demo`` wherever weights are given."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import poise
from poise.data import open_data
from poise.data.demo import CLASS_NAMES, write_demo_data
from poise.data.demo.scenes import SHAPES
from poise.engine.model import build_model
from poise.published.demo import SHA256, demo_weights
from poise.published.sources import locate_weights
from poise.recipes import get_recipe, with_settings


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with the classes of the network that it has not seen."""
    folder = tmp_path_factory.mktemp("demo_network") / "scenes"
    return write_demo_data(folder, train=2, val=12, seed=4242, size=256, style="plain", classes="more_shapes")


@pytest.fixture(scope="module")
def other_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with the classes of the demo."""
    return write_demo_data(tmp_path_factory.mktemp("demo_network") / "other", train=2, val=1, size=64)


def test_file_is_small_and_the_one_that_the_page_describes() -> None:
    content = demo_weights().read_bytes()
    assert len(content) <= 2_000_000
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert SHA256 in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_classes_are_not_those_of_the_demo() -> None:
    names = poise.load(demo_weights()).class_names
    assert names == tuple(SHAPES["more_shapes"])
    assert not set(names) & set(CLASS_NAMES)


def test_detects_objects_of_scenes_that_it_has_not_seen(scenes: Path) -> None:
    detector = poise.Detector("atss_tiny_fpn", "cpu", weights="demo")
    assert detector.val(scenes, "val").metrics.ap50 > 0.35
    assert poise.Detector("demo", "cpu").class_names == detector.class_names


def test_another_model_or_options_are_refused() -> None:
    with pytest.raises(ValueError, match="are of the model 'atss_tiny_fpn', not of 'atss_r18_fpn'"):
        poise.Detector("atss_r18_fpn", "cpu", weights="demo")
    with pytest.raises(ValueError, match="num_classes"):
        poise.Detector("atss_tiny_fpn", "cpu", weights="demo", num_classes=3)


def test_a_file_named_demo_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of data, for example
    assert locate_weights("demo", "atss_tiny_fpn") == demo_weights()
    (tmp_path / "demo" / "best.pt").touch()
    assert locate_weights("demo", "atss_tiny_fpn") == Path("demo/best.pt")
    with pytest.raises(ValueError, match="no weights 'other'"):
        locate_weights("other", "atss_tiny_fpn")


def test_trainings_of_the_tiny_model_start_from_it(other_scenes: Path) -> None:
    """All tensors but those of the classes are those of the file, and nothing is frozen."""
    images = open_data(other_scenes, "train")
    model, notes = build_model(get_recipe("atss_tiny_fpn"), images, fresh=True)
    start, own = poise.load(demo_weights()).state_dict(), model.state_dict()
    differing = {name for name, value in own.items() if not torch.equal(value, start[name].to(value.dtype))}
    assert differing == {"network.branch.head.classes.weight", "network.branch.head.classes.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert "weights from demo" in notes[0] and "8 new" in notes[0]


def test_a_model_with_its_backbone_gets_the_backbone(other_scenes: Path) -> None:
    images = open_data(other_scenes, "train")
    options = {"backbone": "test_resnet", "channels": 32, "depth": 1}
    recipe = with_settings(get_recipe("fcos_r18_fpn"), {"model.backbone_weights": "none", "model.weights": "demo"})
    model, _ = build_model(with_settings(recipe, {"model.options": options}), images, fresh=True)
    start, own = poise.load(demo_weights()).state_dict(), model.state_dict()
    backbone = [name for name in own if "backbone." in name]
    assert len(backbone) > 20
    assert all(torch.equal(own[name], start[name]) for name in backbone)
    with pytest.raises(ValueError, match="--model.options backbone test_resnet"):
        build_model(recipe, images, fresh=True)
