"""The recipe for small data sets on a small machine, and the line of a plan that proposes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.write_data import coco_content, write_coco

from poise.cli import main
from poise.data import open_data
from poise.engine.batch_size import forward_and_backward, generated_batch
from poise.engine.model import build_model
from poise.recipes import finetune, get_recipe, with_settings
from poise.recipes.small_data import MOST_CORES, MOST_IMAGES, has_bfloat16, precision_hint, small_data_hint


def test_it_is_proposed_for_few_images_and_few_cores_alone() -> None:
    recipe = finetune("atss_r18_fpn")
    (hint,) = small_data_hint(recipe, MOST_IMAGES, MOST_CORES)
    assert "2,000 training images on 8 CPU cores" in hint and "poise train small_data" in hint
    assert not small_data_hint(recipe, MOST_IMAGES + 1, MOST_CORES)
    assert not small_data_hint(recipe, MOST_IMAGES, MOST_CORES + 1)
    assert not small_data_hint(replace(recipe, model=replace(recipe.model, weights="coco")), 100, 2)
    assert not small_data_hint(get_recipe("small_data"), 100, 2)
    assert not small_data_hint(with_settings(get_recipe("small_data"), {"model.weights": ""}), 100, 2)


@pytest.mark.parametrize(("flags", "found"), [("avx512_bf16 amx_bf16", True), ("avx2 avx512_vnni", False)])
def test_bf16_without_instructions_for_it_is_pointed_out(tmp_path: Path, flags: str, found: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: fpu {flags}\n")
    assert has_bfloat16(cpuinfo) is found and has_bfloat16(tmp_path / "none") is None
    recipe = with_settings(get_recipe("small_data"), {"train.precision": "bf16"})
    assert bool(precision_hint(recipe, found)) is not found
    assert not precision_hint(recipe, None), "not known"
    assert not precision_hint(with_settings(recipe, {"train.precision": "fp32"}), found)


def test_the_plan_of_a_training_in_bf16_has_the_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_coco(tmp_path / "data", coco_content(4))
    words = ["train", "small_data", "--data", str(data), "--plan", "--device", "cpu"]
    monkeypatch.setattr("poise.engine.plan.has_bfloat16", lambda: False)
    assert main([*words, "--precision", "bf16"]) == 0
    assert "no instructions for bf16: --precision fp32" in capsys.readouterr().out
    assert main([*words, "--precision", "fp32"]) == 0
    assert "no instructions for bf16" not in capsys.readouterr().out


def test_without_a_name_the_error_proposes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(tmp_path)]) == 2
    assert "poise train small_data --data PATH" in capsys.readouterr().err


def test_a_step_starts_from_the_network_inside_the_package(tmp_path: Path) -> None:
    image_set = open_data(write_coco(tmp_path / "data", coco_content(4)), "train")
    recipe = get_recipe("small_data")
    model, _ = build_model(recipe, image_set, fresh=True)
    random, _ = build_model(with_settings(recipe, {"model.weights": ""}), image_set, fresh=True)
    batch = generated_batch(2, 1, height=64, width=64, device=torch.device("cpu"))
    for network in (model.network, random.network):
        network.train().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, recipe.train.precision == "bf16"):
            forward_and_backward(network, batch)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
    names = dict(random.network.named_parameters())
    assert not any(torch.equal(names[name], p) for name, p in model.network.named_parameters() if p.ndim == 4)
