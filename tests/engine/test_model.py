"""The model of a run, at its start and when it is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from support.parity import checkpoint

from poise.engine.model import build_model
from poise.recipes import finetune


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
