"""The plan before the first step: numbers, warnings, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import TINY_MODEL
from support.write_data import coco_content, write_coco

from poise.cli import main
from poise.data import ImageSet, open_data
from poise.engine import plan_training, train
from poise.engine.model import build_model
from poise.engine.plan import make_plan, object_sides
from poise.engine.processes import Processes
from poise.preprocess import Preprocess
from poise.recipes import Recipe, finetune, with_settings


def small(**changes: object) -> Recipe:
    settings = {
        "model.backbone_weights": "none",
        "model.options": {"channels": 16, "depth": 1, "backbone": "test_byobnet"},
        "data.batch_size": 4,
        "data.workers": 0,
    }
    return with_settings(finetune("atss_r18_fpn", 1, 64), {**settings, **changes})


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.engine.plan.usable_cores", lambda: 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Train: 12 cats of 20 x 10 pixels, one Dog of 4 x 4; val: a horse as well."""
    root, content = tmp_path / "data", coco_content(13)
    content["categories"].append({"id": 9, "name": "horse"})
    for one in content["annotations"]:
        one["category_id"] = 3
    content["annotations"][-1] |= {"category_id": 7, "bbox": [5, 5, 4, 4], "area": 16}
    write_coco(root, content)
    val = coco_content(1)
    val["categories"] = content["categories"]
    val["annotations"][0]["category_id"] = 9
    return write_coco(root, val, split="val", shade=90)


def planned_images(data: Path) -> tuple[ImageSet, ImageSet]:
    return open_data(data, "train"), open_data(data, "val")


def test_sides_of_objects_in_the_network(data: Path) -> None:
    train_set, _ = planned_images(data)  # images of 64 x 48
    sides = object_sides(train_set, Preprocess(short=96, long=128))
    assert sides == pytest.approx([2 * np.sqrt(200)] * 12 + [8])
    stretched = object_sides(train_set, Preprocess(short=96, long=64, keep_ratio=False))
    assert stretched == pytest.approx([np.sqrt(400)] * 12 + [np.sqrt(32)])


def test_a_plan_has_numbers_and_warnings(data: Path) -> None:
    plan = plan_training(small(), data=data, device="cpu")
    assert (plan.train.images, plan.train.objects, plan.train.classes) == (13, 13, {"cat": 12, "Dog": 1, "horse": 0})
    assert plan.val is not None and plan.val.classes == {"cat": 0, "Dog": 0, "horse": 1}
    assert plan.input_size == (64, 64) and plan.finest_stride == 8 and plan.steps_per_epoch == 4
    tiny, only_val, few, hint = plan.warnings
    assert "8 % of the training objects are smaller than the finest stride, 8 pixels" in tiny
    assert "horse: objects in the validation images alone" in only_val
    assert "1 class with fewer than 10 training objects: Dog 1" in few
    assert "13 training images on 2 CPU cores: 'poise train small_data'" in hint
    assert (
        not plan_training(small(**{"model.image_size": [512]}), data=data, device="cpu")
        .warnings[0]
        .startswith("warning: 8 %")
    )
    assert len(plan.text().splitlines()) <= 12
    assert plan.memory.activations is not None and plan.gflops is not None
    both = plan_training(small(**{"data.batch_size": 8}), data=data, device="cpu")
    assert both.memory.activations == pytest.approx(2 * plan.memory.activations)


def test_memory_and_operations_follow_from_the_model(data: Path) -> None:
    """AdamW has two values of each parameter, an EMA one of parameters and buffers."""
    recipe, images = small(), planned_images(data)
    model, _ = build_model(recipe, images[0], fresh=False)
    before, weights = torch.get_rng_state(), {name: one.clone() for name, one in model.state_dict().items()}
    plan = make_plan(recipe, model, *images, processes=Processes(torch.device("cpu")))
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.network.buffers())
    assert plan.memory.states == pytest.approx((5 * 4 * parameters + 2 * buffers) / 1e9)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(weights[name], one) for name, one in model.state_dict().items())
    convolutions: list[float] = []

    def count(layer: torch.nn.Conv2d, inputs: object, output: object) -> None:
        maps = output if isinstance(output, list) else [output]
        size = sum(one.shape[-2] * one.shape[-1] for one in maps)  # type: ignore[union-attr]
        convolutions.append(layer.weight.numel() * size)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.eval().predict(torch.zeros(1, 3, 64, 64))
    assert plan.gflops == pytest.approx(sum(convolutions) / 1e9, rel=0.02)


def test_the_command_prints_the_plan_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = set(data.parent.iterdir())
    words = ["train", "atss_r18_fpn", "--data", str(data), *TINY_MODEL, "--plan", "--out", str(data.parent / "run")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("atss_r18_fpn: ") and "13 training images, 1 validation image" in printed
    assert set(data.parent.iterdir()) == folders


def test_a_run_writes_its_plan_with_the_time_of_an_epoch(data: Path, tmp_path: Path) -> None:
    result = train(small(), data=data, out=tmp_path / "run", device="cpu", progress_display="none")
    plan = json.loads((result.out / "plan.json").read_text())
    assert plan["seconds_per_epoch"] > 0 and plan["train"]["classes"]["cat"] == 12 and len(plan["warnings"]) == 4
    assert plan["memory"]["total"] == pytest.approx(plan["memory"]["states"] + plan["memory"]["activations"])
