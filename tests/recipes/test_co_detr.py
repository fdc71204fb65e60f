"""Co-DETR's recipes against the table of their publication."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from poise.engine.optimize import parameter_groups
from poise.models import create_model
from poise.recipes import get_recipe, list_recipes
from poise.recipes.co_detr import layer_decay


def test_each_is_a_batch_of_16_clipped_with_a_slow_backbone() -> None:
    names = list_recipes("co_*")
    assert len(names) == 32
    for name in names:
        recipe = get_recipe(name)
        plain = name.startswith("co_plain")  # Deformable-DETR's own batch
        assert (
            recipe.data.batch_size == (32 if plain else 16)
            and recipe.train.clip_norm == 0.1
            and recipe.optimizer.name == "adamw"
        )
        assert recipe.optimizer.backbone_lr_multiplier == (1.0 if "vit_l_12e" in name or "o365_26e" in name else 0.1)
        assert f"_{recipe.schedule.epochs}e" in name
        assert (recipe.augment.jitter_canvas > 0) == ("lsj" in name or "lvis" in name)
        assert (recipe.augment.crop == 0.5) == (not recipe.augment.jitter_canvas)


@pytest.mark.parametrize(
    ("name", "rate", "decay", "drops", "canvas", "longest"),
    [
        ("co_deformable_detr_r50_12e", 2e-4, 1e-4, (11,), 0, 0),
        ("co_deformable_detr_swin_b_36e", 2e-4, 0.05, (30,), 0, 0),
        ("co_dino_5scale_r50_lsj_36e", 2e-4, 1e-4, (30,), 1024, 0),
        ("co_dino_5scale_swin_l_lsj_24e", 2e-4, 1e-4, (20,), 1280, 0),
        ("co_dino_5scale_swin_l_o365_coco_16e", 1e-4, 1e-4, (8,), 0, 2048),
        ("co_dino_5scale_swin_l_o365_lvis_16e", 1e-4, 1e-4, (8,), 1536, 0),
        ("co_dino_5scale_vit_l_12e", 5e-5, 0.01, (7,), 0, 2400),
        ("co_dino_5scale_vit_l_lvis_16e", 5e-5, 0.05, (9, 15), 1536, 0),
    ],
)
def test_published_settings(
    name: str, rate: float, decay: float, drops: tuple[int, ...], canvas: int, longest: int
) -> None:
    recipe = get_recipe(name)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (rate, decay)
    assert recipe.schedule.milestones == drops
    assert (recipe.augment.jitter_canvas, recipe.augment.longest) == (canvas, longest)
    assert recipe.train.federated_classes == (50 if "lvis" in name else 0)
    assert recipe.data.repeat_threshold == (1e-3 if "lvis" in name else 0)


def test_the_detrs_crop_before_they_resize() -> None:
    for name, longest in (("deformable_detr_r50_50e", 4200), ("dino_r50_12e", 4200), ("dab_detr_r50_50e", 1333)):
        augment = get_recipe(name).augment
        assert augment.crop == 0.5 and augment.crop_longest == longest and augment.crop_sides == (384, 600)
        assert augment.crop_short_choices == (400, 500, 600) and augment.short_choices == tuple(range(480, 801, 32))


def test_rates_fall_from_block_to_block() -> None:
    rates = layer_decay(24, 0.8)
    assert rates["backbone.body.blocks.23."] == pytest.approx(0.8)
    assert rates["backbone.body.blocks.0."] == pytest.approx(0.8**24)
    assert rates["backbone.body.pos_embed"] == rates["backbone.body.patch_embed"] == pytest.approx(0.8**25)
    network = nn.Module()
    network.backbone, network.head = nn.Module(), nn.Linear(2, 2)
    network.backbone.body = timm.create_model("eva02_tiny_patch14_224")  # poise names a vision transformer's parts so
    settings = replace(get_recipe("co_dino_5scale_vit_l_12e").optimizer, lr_multipliers=layer_decay(12, 0.8))
    groups = parameter_groups(network, settings)
    own = {name: group["lr_multiplier"] for group in groups for name in group["names"]}
    block = {rate for name, rate in own.items() if "blocks.10." in name}
    assert block == {0.8**2} and own["head.weight"] == 1.0
    assert own["backbone.body.pos_embed"] == 0.8**13


def test_pretraining_on_objects365_steps() -> None:
    """The recipe's model with 365 classes, on a small vision transformer, after one step of its optimizer's kind."""
    recipe = get_recipe("co_dino_5scale_vit_l_o365_26e")
    small = {"backbone": "eva02_tiny_patch14_224", "channels": 16, "attention_heads": 2, "hidden": 16, "queries": 9}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "regions": 16, "region_hidden": 16}
    torch.manual_seed(0)
    model = create_model(recipe.model.name, 365, deterministic=True, **small, **layers).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.optimizer.lr)
    pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 28.0]]), "labels": torch.tensor([364])}]
    totals = []
    for _ in range(2):
        total = torch.stack(list(model.losses(pixels, targets).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[1] < totals[0]
