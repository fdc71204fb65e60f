"""Packages that add parts: found by name, listed with their origin, left out when broken, imported by no file."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import poise
from poise import plugins
from poise.cli.main import main
from poise.data import DataError, open_data, splits
from poise.data.augment import build_pipeline, make_scene
from poise.data.augment.pipeline import AUGMENTATIONS
from poise.data.opening import FORMATS
from poise.evaluate.extra import METRICS, MeasureWithExtra, check_metrics
from poise.models.assigners import ASSIGNERS
from poise.models.catalog import NAMES
from poise.models.files import MissingPackage
from poise.preprocess import Preprocess
from poise.recipes import AugmentSettings, get_recipe
from poise.recipes.catalog import RECIPES
from poise.storage import read_safely, save_atomically
from poise.testing import BrokenContract, check_dataset_format

PACKAGE = '''
from dataclasses import dataclass

from torch import nn

import poise
from poise.assign import CenterRegion
from poise.criteria import fcos_criterion
from poise.nn.heads.centerness import CenternessHead, Distances
from poise.nn.layers import point_grid
from poise.recipes import Recipe
from poise.recipes.fine_tuning import finetune
from poise.structures import Assignment, GroundTruth, Predictions

poise.require_interface(1)


@dataclass(frozen=True)
class Near:
    """Points near the centers of objects."""

    radius: float = 2.0

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        return CenterRegion(self.radius)(predictions, truth)


def head(channels: int, num_classes: int, strides: tuple[int, ...], depth: int = 1) -> nn.Module:
    return CenternessHead(channels, num_classes, point_grid(strides, 0.5), Distances(), depth=depth)


def ours_quick() -> Recipe:
    """Quick settings of ours."""
    return finetune("ours_r18_fpn")


poise.register_assigner("near", Near)
poise.register_head("ours", head, assigner=Near(), criterion=fcos_criterion())
poise.register_recipe("ours_quick", ours_quick)
'''
BROKEN = (
    "import poise\nfrom poise.assign import ATSS\npoise.register_assigner('half', ATSS)\nraise RuntimeError('boom')\n"
)
SMALL = {"backbone": "test_resnet", "channels": 16}


class Packages:
    """Writes packages where Python finds them, and forgets what they registered."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.modules = folder, set(sys.modules)
        self.registries: list[Any] = [ASSIGNERS, NAMES, RECIPES, FORMATS, AUGMENTATIONS, METRICS]
        self.before = [dict(registry) for registry in self.registries]

    def __call__(self, name: str, text: str, version: str = "0.1", plugin: bool = True) -> None:
        (self.folder / f"{name}.py").write_text(text)
        information = self.folder / f"{name}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (information / "entry_points.txt").write_text(f"[poise.plugins]\n{name} = {name}\n" if plugin else "")
        importlib.invalidate_caches()

    def forget(self) -> None:
        """As in a new process."""
        for registry, entries in zip(self.registries, self.before, strict=True):
            registry.clear()
            registry.update(entries)
        plugins._added.clear()
        plugins._state["loaded"] = False
        for module in set(sys.modules) - self.modules:
            if str(self.folder) in str(getattr(sys.modules[module], "__file__", "")):
                del sys.modules[module]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    """Write a package with an entry point where Python finds it; undone afterward."""
    monkeypatch.setattr(plugins, "_added", [])
    monkeypatch.setattr(plugins, "_state", {"loaded": False})
    monkeypatch.syspath_prepend(str(tmp_path))
    packages = Packages(tmp_path)
    yield packages
    packages.forget()


def test_a_plugin_is_imported_when_its_name_is_looked_up(install: Packages) -> None:
    install("ours", PACKAGE)
    poise.create_model("atss_r18_fpn", 3, assigner="sim_ota", **SMALL)  # names of poise alone
    assert "ours" not in sys.modules
    model = poise.create_model("ours_r18_fpn", 3, depth=2, assigner="near(radius=3.0)", **SMALL)
    assert "ours" in sys.modules
    assert model.network.branch.assigner.radius == 3.0 and len(model.network.branch.head.classification) == 2
    assert poise.create_model("ours_r18_fpn", 3, assigner="atss", **SMALL).options["assigner"] == "atss"
    assert get_recipe("ours_quick") == get_recipe("ours_r18_fpn")
    with pytest.raises(ValueError, match=r"has no option 'deepth', did you mean 'depth'\?"):
        poise.create_model("ours_r18_fpn", 3, deepth=2, **SMALL)


def test_lists_say_where_a_name_comes_from(install: Packages, capsys: pytest.CaptureFixture[str]) -> None:
    install("ours", PACKAGE)
    assert main(["models", "ours_r18*", "--names"]) == 0 and main(["recipes", "ours*"]) == 0
    assert (
        capsys.readouterr().out
        == "ours_r18_fpn (package ours 0.1)\nours_quick (package ours 0.1)  Quick settings of ours.\n"
    )
    assert main(["models", "ours_r18*", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["package"], row["published_ap"]) == ("ours_r18_fpn", "ours 0.1", None)
    assert main(["models", "ours_r18*"]) == 0
    assert "ours_r18_fpn (package ours 0.1)" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no assigner 'list'; there are max_iou, .*, near \(package ours 0.1\)"):
        poise.create_model("fcos_r18_fpn", 3, assigner="list", **SMALL)


def test_a_broken_plugin_is_named_and_left_out(install: Packages) -> None:
    install("ours", PACKAGE)
    install("a_broken_one", BROKEN, "9.9")
    with pytest.warns(
        plugins.PluginWarning, match="'a_broken_one' of package a_broken_one 9.9 is broken.*RuntimeError: boom"
    ):
        names = poise.list_models("ours*")
    assert "ours_r18_fpn" in names and "half" not in ASSIGNERS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        poise.list_models()  # once in a process


def test_another_version_of_the_interface_is_refused_with_the_cure() -> None:
    poise.require_interface(plugins.INTERFACE)
    with pytest.raises(ImportError, match="this is 1: update poise"):
        poise.require_interface(plugins.INTERFACE + 1)


@pytest.mark.parametrize(
    "name, message",
    [("atss", "of package tests: poise already has this name"), ("a b", "letters, digits and underscores")],
)
def test_names_are_free_and_can_be_written(name: str, message: str, install: Packages) -> None:
    with pytest.raises(ValueError, match=message):
        plugins.add("assigner", ASSIGNERS, name, None, module="tests.test_plugins")


def test_a_name_belongs_to_the_package_that_registered_it(install: Packages) -> None:
    plugins.add("assigner", ASSIGNERS, "mine", 1, module="first.module")
    plugins.add("assigner", ASSIGNERS, "mine", 2, module="first")  # a cell of a notebook that runs again
    assert ASSIGNERS["mine"] == 2  # type: ignore[comparison-overlap]
    with pytest.raises(ValueError, match="package first already has this name"):
        plugins.add("assigner", ASSIGNERS, "mine", 3, module="second")


def test_a_file_names_the_package_that_made_it_and_imports_nothing(install: Packages, tmp_path: Path) -> None:
    install("ours", PACKAGE, plugin=False)
    importlib.import_module("ours")
    poise.save(poise.create_model("ours_r18_fpn", 3, **SMALL), tmp_path / "own.pt")
    poise.save(poise.create_model("fcos_r18_fpn", 3, assigner="near", **SMALL), tmp_path / "assigner.pt")
    assert read_safely(tmp_path / "own.pt")["model"]["packages"] == ["ours 0.1"]
    install.forget()
    for name, unknown in (("own", "no model 'ours_r18_fpn'"), ("assigner", "no assigner 'near'")):
        with pytest.raises(MissingPackage, match=f"{unknown}.*written with ours 0.1.*poise --import ours"):
            poise.load(tmp_path / f"{name}.pt")
    assert "ours" not in sys.modules
    importlib.import_module("ours")
    for name in ("own", "assigner"):
        assert poise.load(tmp_path / f"{name}.pt").num_classes == 3


def test_a_file_that_names_any_module_does_not_import_it(tmp_path: Path, install: Packages) -> None:
    install("evil", "raise SystemExit('imported')", plugin=False)
    poise.save(poise.create_model("fcos_r18_fpn", 3, **SMALL), tmp_path / "model.pt")
    payload = read_safely(tmp_path / "model.pt")
    payload["model"] |= {"name": "evil_r18_fpn", "packages": ["evil 1.0"]}
    save_atomically(tmp_path / "model.pt", payload)
    with pytest.raises(MissingPackage, match="written with evil 1.0"):
        poise.load(tmp_path / "model.pt")
    assert "evil" not in sys.modules


def test_import_on_the_command_line(
    install: Packages, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ours", PACKAGE, plugin=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["models", "ours_r18*"]) == 1
    assert main(["--import", "ours", "models", "ours_r18*", "--names"]) == 0
    assert capsys.readouterr().out == "ours_r18_fpn (package ours 0.1)\n"
    assert main(["--import", "nowhere_at_all", "models"]) == 2
    assert "--import nowhere_at_all: there is no such package" in capsys.readouterr().err


FORMAT = '''
import csv
from pathlib import Path

import torch

import poise
from torchvision.transforms import v2


def splits(path):
    return [file.stem for file in sorted(path.glob("*.boxes"))] if path.is_dir() else []


def read(path, split):
    rows = list(csv.reader((path / f"{split}.boxes").open()))
    names = sorted({row[0] for row in rows})
    box = lambda row: [float(row[1]), float(row[2]), WIDTH, float(row[4])]
    return {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": names.index(row[0]), "category_id": 1, "bbox": box(row)} for i, row in enumerate(rows)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def share_found(truth, detections):
    """Objects for each detection."""
    return len(truth["annotations"]) / max(len(detections), 1)


poise.register_dataset_format("boxes", splits=splits, read=read)
poise.register_augmentation("gray", lambda probability=1.0: v2.RandomGrayscale(probability))
poise.register_metric("objects_per_detection", share_found)
'''


def write_boxes(folder: Path) -> Path:
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    for name in ("a.png", "b.png"):
        image.save(folder / name)
    for split in ("train", "val"):
        (folder / f"{split}.boxes").write_text("a.png,4,5,20,20\nb.png,10,6,12,30\n")
    return folder


def test_a_data_set_format_of_a_plugin(install: Packages, tmp_path: Path) -> None:
    install("formats", FORMAT.replace("WIDTH", "float(row[3])"))
    data = write_boxes(tmp_path / "data")
    assert splits(data) == ("train", "val")
    train = open_data(data, "train")
    assert train.format == "boxes" and train[0].boxes.tolist() == [[4, 5, 24, 25]] and train.class_names == ("thing",)
    check_dataset_format(data, "boxes")
    (data / "train.boxes").write_text("c.png,4,5,20,20\n")
    with pytest.raises(DataError, match=r"split 'train' of .*read as 'boxes' \(formats 0.1\)"):
        open_data(data, "train")
    with pytest.raises(DataError, match=r"formats of plug-ins: boxes \(package formats 0.1\)"):
        open_data(tmp_path)


def test_a_format_with_a_fault_breaks_its_contract(install: Packages, tmp_path: Path) -> None:
    install("formats", FORMAT.replace("WIDTH", "-float(row[3])"))
    with pytest.raises(BrokenContract, match="data set format"):
        check_dataset_format(write_boxes(tmp_path / "data"))


def test_an_augmentation_of_a_plugin(install: Packages) -> None:
    install("formats", FORMAT)
    scene = make_scene(
        torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8), torch.tensor([[1.0, 2, 30, 30]]), torch.tensor([0])
    )
    for text, gray in (("gray", True), ("gray(probability=0.0)", False)):
        pipeline = build_pipeline(AugmentSettings(flip=0.0, extra=(text,)), Preprocess().with_size(40))
        image = pipeline(scene, lambda: scene)["image"]
        assert bool((image[0] == image[1]).all()) is gray
    with pytest.raises(
        ValueError, match=r"no augmentation 'grey', did you mean 'gray'\?; there are gray \(package formats 0.1\)"
    ):
        build_pipeline(AugmentSettings(extra=("grey",)), Preprocess())
    with pytest.raises(ValueError, match="augmentation 'gray' has no option 'share'; it has probability"):
        build_pipeline(AugmentSettings(extra=("gray(share=1)",)), Preprocess())


def test_a_metric_of_a_plugin(install: Packages, tmp_path: Path) -> None:
    install("formats", FORMAT.replace("WIDTH", "float(row[3])"))
    truth = open_data(write_boxes(tmp_path / "data"), "val").to_coco()
    found = [
        {"image_id": image["id"], "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5} for image in truth["images"]
    ]
    check_metrics(["objects_per_detection"])
    metrics = MeasureWithExtra(("objects_per_detection",))(truth, found).metrics
    assert metrics.numbers()["objects_per_detection"] == 1.0 and "objects_per_detection" in metrics.table()
    assert type(metrics).from_dict(metrics.to_dict()).extra == metrics.extra
    with pytest.raises(
        ValueError, match=r"no metric 'objects', .*there are objects_per_detection \(package formats 0.1\)"
    ):
        check_metrics(["objects"])


class Tiny(nn.Module):
    """Maps of strides 8 to 32 by strided convolutions."""

    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stages, self.channels = stages, (8,) * len(stages)
        self.layers = nn.ModuleList([nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(max(stages))])

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            pixels = layer(pixels)
            maps.append(pixels)
        return [maps[stage - 1] for stage in self.stages]


def test_a_backbone_of_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Packages) -> None:
    from poise.nn.backbones.timm_features import BACKBONES

    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
    plugins._added.append(plugins._Added("backbone", "tiny", BACKBONES, plugins.Origin("ours", "0.1")))
    for name in ("atss_r18_fpn", "deformable_detr_r18"):
        model = poise.create_model(name, 3, backbone="tiny", channels=32)
        assert all(
            loss.isfinite()
            for loss in model.losses(
                torch.zeros(1, 3, 64, 64),
                [{"boxes": torch.tensor([[1.0, 1.0, 30.0, 40.0]]), "labels": torch.tensor([1])}],
            ).values()
        )
    poise.save(model, tmp_path / "model.pt")
    assert read_safely(tmp_path / "model.pt")["model"]["packages"] == ["ours 0.1"]
    poise.load(tmp_path / "model.pt")
    for options, message in [
        ({"backbone_weights": "imagenet"}, "has no ImageNet weights"),
        ({"frozen_stages": 1}, "stages of this backbone are unknown"),
        ({"deformable_stages": (5,)}, "no 3x3 convolutions to replace"),
    ]:
        with pytest.raises(ValueError, match=message):
            poise.create_model("vfnet_r18_fpn", 3, backbone="tiny", **options)
