"""Classes of a model file are matched by name, whatever their order and number in the new data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from poise import Detector
from poise.detection_model import DetectionModel
from poise.engine.class_transfer import class_parameters, transfer
from poise.engine.model import build_model
from poise.models import create_model
from poise.models.files import save_model
from poise.recipes import finetune, with_settings

TINY = {"backbone": "test_byobnet", "image_size": 64}
KINDS: dict[str, dict[str, Any]] = {
    "atss_r18_fpn": {**TINY, "channels": 16, "depth": 1},
    "fcos_r18_fpn": {**TINY, "channels": 16, "depth": 1},
    "faster_rcnn_r18_fpn": {**TINY, "channels": 16},
    "dino_r18": {"backbone": "test_byobnet", "image_size": 64, "queries": 8, "encoder_layers": 1, "decoder_layers": 1},
}
IMAGE = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def classes(*names: str) -> Any:
    return SimpleNamespace(class_names=names, category_ids=tuple(range(1, len(names) + 1)), name="train")


def make(kind: str, *names: str) -> DetectionModel:
    torch.manual_seed(len(names))
    model = create_model(kind, len(names), **KINDS[kind])
    with torch.no_grad():  # classes that differ, and scores that survive the thresholds
        for name in class_parameters(model):
            values = model.state_dict()[name]
            values.normal_(0, 0.5)
    model.set_classes(names, tuple(range(1, len(names) + 1)))
    return model


def found(model: DetectionModel) -> list[tuple[str, float, tuple[float, ...]]]:
    """Class name, score and box of every detection."""
    result = Detector(model, "cpu").predict(IMAGE, score_threshold=0.0)[0]
    boxes = [tuple(round(value, 2) for value in box) for box in result.boxes.xyxy.tolist()]
    return sorted(zip(result.names, (round(score, 4) for score in result.scores.tolist()), boxes, strict=True))


def start(kind: str, file: Path, *names: str) -> tuple[DetectionModel, str]:
    recipe = with_settings(
        finetune(kind),
        {"model.weights": str(file), "model.backbone_weights": "none", "model.image_size": (64,)}
        | {f"model.options.{key}": value for key, value in KINDS[kind].items() if key != "image_size"},
    )
    model, notes = build_model(recipe, classes(*names), fresh=True)
    return model.eval(), " ".join(notes)


@pytest.mark.parametrize("kind", KINDS)
def test_another_order_finds_the_same_things(kind: str, tmp_path: Path) -> None:
    trained = make(kind, "ant", "bee").eval()
    save_model(trained, tmp_path / "model.pt")
    model, note = start(kind, tmp_path / "model.pt", "bee", "ant")
    assert "2 classes matched by name (bee, ant)" in note and "new" not in note
    assert len(found(trained)) > 5 and found(model) == found(trained)


@pytest.mark.parametrize("kind", KINDS)
def test_common_classes_are_carried_over_and_others_start_anew(kind: str, tmp_path: Path) -> None:
    trained = make(kind, "ant", "bee", "cricket").eval()
    save_model(trained, tmp_path / "model.pt")
    model, note = start(kind, tmp_path / "model.pt", "wasp", "cricket")
    assert "1 class matched by name (cricket), 1 new (wasp)" in note
    ours, theirs = model.state_dict(), trained.state_dict()
    rows = [name for name in class_parameters(model) if len(theirs[name]) - len(ours[name]) == 1]  # one a class
    assert rows
    for name in rows:
        assert torch.equal(ours[name][1], theirs[name][2]) and not torch.equal(ours[name][0], theirs[name][2])
    assert model.class_names == ("wasp", "cricket")


def test_the_same_classes_say_nothing_of_them(tmp_path: Path) -> None:
    trained = make("atss_r18_fpn", "ant", "bee").eval()
    save_model(trained, tmp_path / "model.pt")
    model, note = start("atss_r18_fpn", tmp_path / "model.pt", "ant", "bee")
    assert "matched" not in note and found(model) == found(trained)


def test_spelling_and_numbers() -> None:
    trained = make("atss_r18_fpn", "Traffic Light", "bee")
    other = make("atss_r18_fpn", "bee", "traffic_light")
    assert transfer(other, trained.state_dict(), trained.class_names).matched == ("bee", "traffic_light")
    unnamed = create_model("atss_r18_fpn", 2, **KINDS["atss_r18_fpn"])
    by_position = transfer(other, unnamed.state_dict(), unnamed.class_names)
    name = next(name for name in class_parameters(other) if name.endswith("weight"))
    assert torch.equal(by_position.weights[name], unnamed.state_dict()[name])


def test_a_given_model_keeps_its_classes_by_name() -> None:
    given = make("atss_r18_fpn", "ant", "bee").eval()
    recipe = with_settings(finetune("atss_r18_fpn"), {"model.backbone_weights": "none"})
    model, notes = build_model(recipe, classes("bee", "ant"), fresh=True, given=given)
    assert "2 classes matched by name (bee, ant)" in notes[0]
    assert found(model.eval()) == found(given) and given.class_names == ("ant", "bee")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    """Classes are shared and a few small tensors fit by chance; a layer of other channels is never taken."""
    other = create_model("fcos_r18_fpn", 2, backbone="test_resnet", image_size=64, channels=8, depth=1)
    other.set_classes(("cat", "dog"))
    save_model(other, tmp_path / "fcos.pt")
    with pytest.raises(ValueError, match=r"hardly a tensor of .*fcos.pt fits dino_r18 .* of the model 'fcos_r18_fpn'"):
        start("dino_r18", tmp_path / "fcos.pt", "cat", "bird")
    wide = create_model("fcos_r18_fpn", 2, backbone="test_byobnet", image_size=64, channels=32, depth=1)
    wide.set_classes(("cat", "dog"))
    values = {name: value for name, value in wide.state_dict().items() if not name.startswith("network.backbone")}
    moved = transfer(make("fcos_r18_fpn", "cat", "bird"), values, ("cat", "dog"))
    assert all("class" not in name or name.endswith("bias") for name in moved.weights)
