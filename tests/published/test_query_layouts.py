"""Key names of further published checkpoints: every one is a parameter of the model of its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from poise.models import create_model
from poise.published.co_detr import split_embedding
from poise.published.keys import rules_of, translate
from poise.published.swin import reordered

LAYOUTS = {
    "co_deformable_detr_swin_large": ("co_deformable_detr_swin_l", {"queries": 300}),
    "co_dino_5scale_9encoder_r50": ("co_dino_5scale_r50", {"encoder_layers": 9}),
    "co_dino_5scale_swin_large": ("co_dino_5scale_swin_l", {}),
    "co_dino_5scale_vit_large": ("co_dino_5scale_vit_l", {}),
    "co_dino_5scale_swin_large_lvis": ("co_dino_5scale_swin_l", {"num_classes": 1203}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_key_is_a_parameter(shared: Path, layout: str) -> None:
    paths = [shared / "golden" / folder / f"{layout}.keys.json" for folder in ("layouts", ".")]
    shapes = json.loads(next(path for path in paths if path.is_file()).read_text())
    name, options = LAYOUTS[layout]
    with torch.device("meta"):
        own = {key: tuple(value.shape) for key, value in create_model(name, **options).network.state_dict().items()}
        theirs = split_embedding({key: torch.empty(shape) for key, shape in shapes.items()})
    rules, filled = rules_of(name) or [], set()
    for key, value in theirs.items():
        known, target = translate(key, rules)
        assert known, key
        if target is not None:
            assert own[target] == tuple(value.shape), (key, target)
            filled.add(target)
    assert set(own) == filled


def test_merging_layers_are_reordered() -> None:
    """The original unfolds 2x2 neighbors channel by channel; Microsoft lays the neighbors' channels side by side."""
    channels = 3
    x = torch.randn(1, channels, 2, 2)
    weight = torch.randn(2 * channels, 4 * channels)
    theirs = torch.nn.functional.unfold(x, 2, stride=2)[0, :, 0] @ weight.T
    state = reordered({"backbone.stages.0.downsample.reduction.weight": weight, "backbone.norm1.weight": weight[0]})
    neighbors = torch.cat([x[0, :, row, column] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))])
    torch.testing.assert_close(neighbors @ state["backbone.stages.0.downsample.reduction.weight"].T, theirs)
    assert torch.equal(state["backbone.norm1.weight"], weight[0])
