"""The model of a run, at its start and when it is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from support.parity import checkpoint

from poise.engine.model import build_model
from poise.models import create_model
from poise.models.files import save_model
from poise.recipes import finetune
from poise.recipes.short_options import with_options


def test_a_resumed_run_freezes_what_its_published_weights_froze(tmp_path: Path) -> None:
    """Else the optimizer would hold other parameters than the run that was stopped."""
    torch.save({"state_dict": checkpoint("atss_r50")}, tmp_path / "published.pth")
    recipe = finetune("atss_r50_fpn")
    settings = replace(recipe.model, backbone_weights="none", weights=str(tmp_path / "published.pth"))
    recipe = replace(recipe, model=settings)
    classes: Any = SimpleNamespace(class_names=("a", "b", "c"), category_ids=(1, 2, 3))
    trained = [
        [name for name, parameter in model.train().named_parameters() if parameter.requires_grad]
        for model, _ in (build_model(recipe, classes, fresh) for fresh in (True, False))
    ]
    assert trained[0] == trained[1]
    assert not any(".layer1." in name for name in trained[0]) and any(".layer2." in name for name in trained[0])


def test_nothing_is_downloaded_where_the_weights_hold_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's ``imagenet`` is for a start without ``model.weights``; what it freezes stays frozen."""
    small = {"backbone": "test_resnet", "channels": 16, "depth": 1}
    trained = create_model("atss_r18_fpn", num_classes=3, **small)
    save_model(trained, tmp_path / "best.pt")
    recipe = with_options(
        finetune("atss_r18_fpn"),
        {"weights": str(tmp_path / "best.pt"), "backbone_weights": "imagenet", "model": {"options": small}},
    )
    classes: Any = SimpleNamespace(class_names=("a", "b", "c"), category_ids=(1, 2, 3), name="train")
    create = timm.create_model

    def offline(name: str, *arguments: object, pretrained: bool = False, **more: object) -> object:
        assert not pretrained, "a download was requested"
        return create(name, *arguments, pretrained=pretrained, **more)

    def look_up(address: str, **more: object) -> None:
        raise AssertionError(f"a download was requested of {address}")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look_up)
    model, notes = build_model(recipe, classes, fresh=True)
    key = "network.branch.head.classes.bias"
    assert torch.equal(model.state_dict()[key], trained.state_dict()[key])
    assert "tensors" in notes[0]
    with pytest.raises(AssertionError, match="a download was requested"):
        build_model(with_options(recipe, {"weights": ""}), classes, fresh=True)
