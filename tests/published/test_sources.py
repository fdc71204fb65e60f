"""What ``weights=`` and ``--weights`` accept at every door: words, files, run folders and hf:// addresses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.hub import Hub
from support.server import Server, serving
from torch import Tensor

import poise
from poise.api import RandomWeightsWarning
from poise.api.opening import open_model
from poise.cli.main import main
from poise.data import open_data, write_demo_data
from poise.detection_model import DetectionModel
from poise.engine.model import build_model
from poise.models.files import describe, save_model
from poise.published import coco, table
from poise.published.sources import locate_weights
from poise.recipes import Recipe, get_recipe, with_settings

NAME = "atss_r18_fpn"
TINY = {"backbone": "test_byobnet", "channels": 32}
ORIGINALS = (  # names of tensors in poise, and in the original project
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"neck\.laterals\.(\d)\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
    (r"neck\.outputs\.(\d)\.(.+)", r"neck.fpn_convs.\1.conv.\2"),
    (r"neck\.extra\.convs\.0\.(.+)", r"neck.fpn_convs.3.conv.\1"),
    (r"neck\.extra\.convs\.1\.(.+)", r"neck.fpn_convs.4.conv.\1"),
    (r"branch\.head\.classification\.(\d)\.norm\.(.+)", r"bbox_head.cls_convs.\1.gn.\2"),
    (r"branch\.head\.regression\.(\d)\.norm\.(.+)", r"bbox_head.reg_convs.\1.gn.\2"),
    (r"branch\.head\.classification\.(\d)\.(.+)", r"bbox_head.cls_convs.\1.\2"),
    (r"branch\.head\.regression\.(\d)\.(.+)", r"bbox_head.reg_convs.\1.\2"),
    (r"branch\.head\.scales\.(\d)\.scale", r"bbox_head.scales.\1.scale"),
    (r"branch\.head\.classes\.(.+)", r"bbox_head.atss_cls.\1"),
    (r"branch\.head\.box_distances\.(.+)", r"bbox_head.atss_reg.\1"),
    (r"branch\.head\.centerness\.(.+)", r"bbox_head.atss_centerness.\1"),
)


def tiny(num_classes: int = 80) -> DetectionModel:
    torch.manual_seed(0)
    return poise.create_model(NAME, num_classes, **TINY)


def original_names(model: DetectionModel) -> dict[str, Tensor]:
    state = {}
    for key, value in model.network.state_dict().items():
        state[next(re.sub(ours, theirs, key) for ours, theirs in ORIGINALS if re.fullmatch(ours, key))] = value
    return state


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], bytes]:
    path = tmp_path_factory.mktemp("published") / "atss_tiny.pth"
    state = original_names(tiny())
    torch.save({"state_dict": state}, path)
    return state, path.read_bytes()


@pytest.fixture
def server(
    published: tuple[dict[str, Tensor], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A mirror with the first checkpoint of a table in which two tiny ones take the rows of ATSS."""
    digest = hashlib.sha256(published[1]).hexdigest()
    row = replace(table.checkpoint_of("atss_r50_fpn"), model=NAME, original="atss_tiny_1x", options=TINY)
    rows = (replace(row, path="tiny/atss_tiny.pth", sha256=digest[:8]), replace(row, original="atss_tiny_2x"))
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table, "checkpoints", lambda: rows)
    monkeypatch.setattr("poise.published.sources.checkpoints", lambda: rows)
    with serving() as running:
        running.file("atss_tiny.pth", published[1])
        monkeypatch.setenv("POISE_WEIGHTS_MIRROR", running.url)
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data"), train=3, val=2, size=64)


@pytest.mark.parametrize("word", ["coco", "atss_tiny_1x"])
def test_a_detector_by_one_word(server: Server, word: str) -> None:
    detector = poise.Detector(NAME, "cpu", weights=word)  # with the options of the row
    assert detector.trained and detector.class_names == coco.NAMES
    assert describe(detector.model)["options"]["channels"] == 32
    expected = tiny().state_dict()
    assert all(value.equal(expected[name]) for name, value in detector.model.state_dict().items())
    assert open_model(NAME, word).weights == word and open_model(NAME, word).file is None
    assert [path for _, path, _ in server.requests] == ["/tiny/atss_tiny.pth", "/atss_tiny.pth"]  # fetched once


def test_the_word_at_the_commands(
    server: Server, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((data / "val").glob("*.jpg"))
    out = tmp_path / "out"
    assert main(["predict", NAME, str(picture), "--weights", "coco", "--out", str(out), "--device", "cpu"]) == 0
    assert (out / "detections.json").is_file()
    capsys.readouterr()
    assert main(["eval", NAME, "--data", str(data), "--weights", "coco", "--device", "cpu"]) == 1
    assert "the model has person, bicycle" in capsys.readouterr().err  # and the data shapes
    assert main(["export", NAME, "--weights", "coca"]) == 1
    assert "did you mean 'coco'" in capsys.readouterr().err


def recipe(weights: str) -> Recipe:
    settings = {"model.weights": weights, "model.backbone_weights": "none", "model.image_size": (64,)}
    return with_settings(get_recipe(NAME), settings)


def test_a_training_starts_from_the_word_and_lists_its_classes(server: Server, data: Path) -> None:
    images = open_data(data, "train")
    assert "star" in images.class_names
    model, notes = build_model(recipe("coco"), images, fresh=True)
    start, own = tiny().state_dict(), model.state_dict()
    assert {name for name, value in own.items() if not value.equal(start[name])} == {
        "network.branch.head.classes.weight",
        "network.branch.head.classes.bias",
    }
    assert "weights from atss_tiny_1x" in notes[0] and "8 new classes: disc, ring" in notes[0]
    num_requests = len(server.requests)
    resumed, _ = build_model(recipe("coco"), images, fresh=False)  # builds the same model, and fetches nothing
    assert describe(resumed) == describe(model) and len(server.requests) == num_requests


def test_rows_of_classes_of_the_same_name_are_carried_over(server: Server) -> None:
    fresh = poise.create_model(NAME, 3, **TINY)
    fresh.set_classes(("dog", "unicorn", "Cat"))
    report = poise.load_published(fresh, locate_weights("coco", NAME), remap_classes=True)
    own, rows = fresh.network.branch.head.classes.weight, tiny().network.branch.head.classes.weight
    assert own[0].equal(rows[coco.NAMES.index("dog")]) and own[2].equal(rows[coco.NAMES.index("cat")])
    assert report.remapped_classes == ("dog", "Cat") and report.new_classes == ("unicorn",)
    assert "2 classes matched by name: dog, Cat" in str(report) and "1 new classes: unicorn" in str(report)


def test_files_run_folders_and_the_hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tiny(2)
    small.set_classes(("cell", "wall"))
    save_model(small, tmp_path / "run" / "best.pt")
    save_model(small, tmp_path / "model.safetensors")
    hub = Hub(server, monkeypatch, str(tmp_path / "hub"))
    hub.accept("me/tiny")
    assert main(["push", str(tmp_path / "run"), "hf://me/tiny"]) == 0
    for source in (tmp_path / "run", tmp_path / "run" / "best", tmp_path / "model.safetensors", "hf://me/tiny"):
        opened = open_model(NAME, source)
        assert opened.model.class_names == ("cell", "wall")
        assert opened.weights == ("hf://me/tiny" if opened.file is None else str(opened.file))
    with pytest.raises(ValueError, match=f"are of the model '{NAME}', not of 'fcos_r18_fpn'"):
        poise.Detector("fcos_r18_fpn", "cpu", weights="hf://me/tiny")


def test_a_training_starts_from_the_hub_and_resumes_without_it(
    server: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny(2), tmp_path / "run" / "best.pt")
    hub = Hub(server, monkeypatch, str(tmp_path / "hub"))
    hub.accept("me/tiny")
    assert main(["push", str(tmp_path / "run"), "hf://me/tiny"]) == 0
    start = with_settings(recipe("hf://me/tiny"), {"model.options": TINY})
    model, notes = build_model(start, open_data(data, "train"), fresh=True)
    assert "weights from hf://me/tiny" in notes[0]
    num_requests = len(server.requests)
    resumed, _ = build_model(start, open_data(data, "train"), fresh=False)
    assert len(server.requests) == num_requests
    assert [one.requires_grad for one in resumed.parameters()] == [one.requires_grad for one in model.parameters()]


@pytest.mark.parametrize(
    "name, weights, message",
    [
        (NAME, "atss_tiny_1", "no weights 'atss_tiny_1' for 'atss_r18_fpn', did you mean 'atss_tiny_1x'.* give coco"),
        (NAME, "cocoa", "did you mean 'coco'"),
        (NAME, "runs/none", "no weights 'runs/none' for 'atss_r18_fpn'.*; give coco"),
        ("fcos_r18_fpn", "coco", "no published checkpoint fits 'fcos_r18_fpn'"),
        ("fcos_r18_fpn", "atss_tiny_1x", "is one of the model 'atss_r18_fpn', not of 'fcos_r18_fpn'"),
        ("yolox_r18_fpn", "yolox_s_8x8_300e_coco", "fits no model of poise: the original's backbone"),
        (NAME, "hf://me", "write hf://owner/name"),
    ],
)
def test_unknown_weights_are_refused_with_the_nearest(server: Server, name: str, weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        poise.Detector(name, "cpu", weights=weights)


def test_another_class_count_is_refused_without_names(server: Server) -> None:
    with pytest.raises(ValueError, match="is it the checkpoint of 'atss_r18_fpn' with 3 classes"):
        poise.Detector(NAME, "cpu", weights="coco", num_classes=3)


def test_a_folder_of_data_does_not_hide_the_word(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco").mkdir()
    assert locate_weights("coco", NAME).name == "atss_tiny_1x.safetensors"
    save_model(tiny(2), tmp_path / "coco" / "best.pt")
    assert locate_weights("coco", NAME) == Path("coco/best.pt")


def test_tensors_that_a_file_does_not_have_are_reported(
    published: tuple[dict[str, Tensor], bytes], tmp_path: Path
) -> None:
    state = {key: value for key, value in published[0].items() if "atss_reg" not in key}
    torch.save(state, tmp_path / "short.pth")
    with pytest.warns(RandomWeightsWarning, match=r"lacks 2 tensors of 'atss_r18_fpn' \(branch.head.box_dist"):
        poise.Detector(NAME, "cpu", weights=tmp_path / "short.pth", **TINY)
