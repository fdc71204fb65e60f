"""Models on the Hugging Face Hub, from a server on the loopback address: ``poise push`` and ``hf://owner/name``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from support.hub import COMMIT, Hub
from support.server import serving

import poise
from poise.cli.main import main
from poise.detection_model import DetectionModel
from poise.models.files import describe
from poise.recipes import get_recipe, load_recipe, save_recipe, with_settings
from poise.storage import DamagedFile
from poise.storage.hub import HubError, split_address

METRICS = {"split": "val", "ap": 0.4321, "ap50": 0.6, "ap_small": None, "counts": {"images": 7, "objects": 30}}
METRICS |= {"classes": [{"name": "cell", "ap": 0.4321, "ap50": 0.6, "objects": 30}]}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        yield Hub(server, monkeypatch, str(tmp_path / "hub"))


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(0)
    made = poise.create_model("atss_r18_fpn", num_classes=2, backbone="test_byobnet", channels=32, image_size=(64, 96))
    made.set_classes(("cell", "wall"), (3, 5))
    return made.eval()


@pytest.fixture
def run(tmp_path: Path, model: DetectionModel) -> Path:
    """A run folder as a training leaves it, with paths of its author's machine in the recipe."""
    folder = tmp_path / "run"
    poise.save(model, folder / "best.pt")
    settings = {"data.path": "/home/me/blood", "model.weights": "/home/me/start.pth", "schedule.epochs": 3}
    save_recipe(with_settings(get_recipe("atss_r18_fpn"), settings), folder / "recipe.yaml")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


def test_what_is_pushed_is_loaded_again(
    hub: Hub, run: Path, model: DetectionModel, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.accept("me/tiny")
    assert main(["push", str(run), "hf://me/tiny", "--license", "cc-by-4.0"]) == 0
    assert capsys.readouterr().out.strip().endswith(f"/me/tiny/commit/{COMMIT}")
    files = hub.repositories["me/tiny"]
    assert set(files) == {"README.md", "metrics.json", "model.safetensors", "recipe.yaml"}
    loaded = poise.load("hf://me/tiny")
    assert describe(loaded) == describe(model) and loaded.class_names == ("cell", "wall")
    assert all(value.equal(loaded.state_dict()[name]) for name, value in model.state_dict().items())
    pixels = torch.rand(3, 60, 90)
    assert (
        poise.Detector(f"hf://me/tiny@{COMMIT}", "cpu").model([pixels])[0]["boxes"].equal(model([pixels])[0]["boxes"])
    )


def test_the_card_and_the_recipe_are_for_others(hub: Hub, run: Path) -> None:
    hub.accept("me/tiny")
    assert main(["push", str(run), "hf://me/tiny", "--license", "cc-by-4.0"]) == 0
    files = hub.repositories["me/tiny"]
    _, head, text = files["README.md"].decode().split("---\n", 2)
    values = yaml.safe_load(head)
    assert (values["license"], values["library_name"], values["pipeline_tag"]) == (
        "cc-by-4.0",
        "poise",
        "object-detection",
    )
    assert values["model-index"][0]["results"][0]["metrics"][0] == {"type": "ap", "value": 0.4321, "name": "AP"}
    assert hashlib.sha256(files["model.safetensors"]).hexdigest() in text
    for part in (
        "2 classes: cell, wall",
        "| AP | 43.2 |",
        "| cell | 43.2 | 60.0 | 30 |",
        "| AP small | - |",
        "`blood`",
    ):
        assert part in text
    assert "started from: `start.pth`" in text and "hf://me/tiny" in text
    assert not any(b"/home/me" in content for content in files.values())


def test_a_folder_is_written_instead_and_can_be_loaded(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["push", str(run / "best.pt"), "hf://me/tiny", "--out", str(out)]) == 0
    assert poise.load(out).class_names == poise.load(out / "model.safetensors").class_names == ("cell", "wall")
    assert load_recipe(out / "recipe.yaml").data.path == "blood"
    assert "states no license" in (out / "README.md").read_text()
    assert main(["push", str(run), "hf://me/tiny", "--out", str(out)]) == 1  # it is not empty
    content = bytearray((out / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(DamagedFile, match="checksum does not match"):
        poise.load(out)


@pytest.mark.parametrize(
    "address, code, status, message",
    [
        ("hf://me/none", "RepoNotFound", 401, "there is no such repository, or it is private"),
        ("hf://me/gated", "GatedRepo", 403, "its owner must give you access first"),
        ("hf://me/empty", "EntryNotFound", 404, "it has no model.safetensors"),
        ("hf://me/tiny@v9", "RevisionNotFound", 404, "the repository has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_named(hub: Hub, address: str, code: str, status: int, message: str) -> None:
    name, revision = split_address(address)
    hub.refuse(f"{name}/resolve/{revision or 'main'}/model.safetensors", code, status)
    with pytest.raises(HubError, match=f"{address}: {message}"):
        poise.load(address)


def test_bad_addresses_and_refused_uploads(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("hf://tiny", "hf://me/tiny/x", "hf://me/tiny@", "me/tiny"):
        assert main(["push", str(run), address]) == 1
        assert "write hf://owner/name" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "nothing"), "hf://me/tiny"]) == 1
    assert "no model file at" in capsys.readouterr().err
    hub.refuse("api/repos/create", "", 403)
    assert main(["push", str(run), "hf://me/tiny"]) == 1
    assert "hf://me/tiny: access is refused: hf auth login" in capsys.readouterr().err


def test_without_a_network_what_was_fetched_before_is_used(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.accept("me/tiny")
    assert main(["push", str(run), "hf://me/tiny"]) == 0
    poise.load("hf://me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert poise.load("hf://me/tiny").num_classes == 2
    with pytest.raises(HubError, match=r"hf://me/other: it could not be reached.* give the folder's path"):
        poise.load("hf://me/other")
