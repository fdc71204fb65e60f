"""The published COCO recipes of the DETR family: AdamW, a tenth of the rate for the backbone, gradients clipped at 0.1.

The originals also crop every other image before they resize it (shorter side 400 to 600, a crop of 384 to 600 pixels);
here images are resized alone, so the published AP is what these recipes come near to, not what they promise. Swin
backbones start from timm's weights of the same networks.
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.augment import AugmentSettings
from poise.recipes.coco import COCO
from poise.recipes.settings import ModelSettings, OptimizerSettings, Recipe, ScheduleSettings, TrainSettings

SIDES = tuple(range(480, 801, 32))
SLOW_SAMPLING = {"sampling_offsets": 0.1, "reference_points": 0.1}  # of the rate, in Deformable-DETR's line


def _recipe(
    model: str,
    lr: float,
    epochs: int,
    drop: int,
    multipliers: dict[str, float] | None = None,
    decay: float = 1e-4,
    batch: int = 16,
    empty: bool = True,
    options: dict[str, bool | int | float | str] | None = None,
) -> Recipe:
    """Rate and batch as published; the rate falls to a tenth after ``drop`` epochs."""
    rates = {} if multipliers is None else multipliers
    return Recipe(
        model=ModelSettings(model, backbone_weights="imagenet", options=options or {}),
        data=replace(COCO, batch=batch, keep_empty=empty),
        augment=AugmentSettings(flip=0.5, short_choices=SIDES),
        optimizer=OptimizerSettings(
            "adamw", lr, lr_batch=batch, weight_decay=decay, backbone_lr_multiplier=0.1, lr_multipliers=rates
        ),
        schedule=ScheduleSettings(epochs, milestones=(drop,), warmup_steps=0),
        train=TrainSettings(clip_norm=0.1),
    )


def deformable_detr_r50_50e() -> Recipe:
    """Deformable-DETR, ResNet-50, 50 epochs; published AP 44.3."""
    return _recipe("deformable_detr_r50", 2e-4, 50, 40, SLOW_SAMPLING, batch=32)


def deformable_detr_refine_r50_50e() -> Recipe:
    """Deformable-DETR with iterative refinement, ResNet-50, 50 epochs; published AP 46.2."""
    return _recipe("deformable_detr_refine_r50", 2e-4, 50, 40, SLOW_SAMPLING, batch=32)


def deformable_detr_twostage_r50_50e() -> Recipe:
    """Two-stage Deformable-DETR, ResNet-50, 50 epochs; published AP 47.0."""
    return _recipe("deformable_detr_twostage_r50", 2e-4, 50, 40, {"sampling_offsets": 0.1}, batch=32)


def conditional_detr_r50_50e() -> Recipe:
    """Conditional-DETR, ResNet-50, 50 epochs; published AP 40.9."""
    return _recipe("conditional_detr_r50", 1e-4, 50, 40, empty=False)


def dab_detr_r50_50e() -> Recipe:
    """DAB-DETR, ResNet-50, 50 epochs; published AP 42.3."""
    return _recipe("dab_detr_r50", 1e-4, 50, 40, empty=False)


def dino_r50_12e() -> Recipe:
    """DINO, ResNet-50, 12 epochs; published AP 49.0."""
    return _recipe("dino_r50", 1e-4, 12, 11)


def dino_r50_24e() -> Recipe:
    """DINO, ResNet-50, 24 epochs."""
    return _recipe("dino_r50", 1e-4, 24, 20)


def dino_r50_36e() -> Recipe:
    """DINO, ResNet-50, 36 epochs."""
    return _recipe("dino_r50", 1e-4, 36, 30)


def dino_r50_improved_12e() -> Recipe:
    """DINO as MMDetection improved it, ResNet-50, 12 epochs; published AP 50.1."""
    options: dict[str, bool | int | float | str] = {"class_weight": 2.0, "denoising": 300, "frozen_stages": -1}
    options |= {"temperature": 10000.0, "offset": -0.5}
    return _recipe("dino_r50", 2e-4, 12, 11, {"sampling_offsets": 0.1}, options=options)


def dino_5scale_swin_l_12e() -> Recipe:
    """DINO, Swin-L, five levels, 12 epochs; published AP 57.2."""
    return _recipe("dino_5scale_swin_l", 1e-4, 12, 11)


def co_deformable_detr_r50_12e() -> Recipe:
    """Co-Deformable-DETR, ResNet-50, 12 epochs; published AP 49.5."""
    return _recipe("co_deformable_detr_r50", 2e-4, 12, 11, {"sampling_offsets": 0.1})


def co_deformable_detr_swin_t_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-T, 12 epochs; published AP 51.7."""
    return _recipe("co_deformable_detr_swin_t", 2e-4, 12, 11, {"sampling_offsets": 0.1}, decay=0.05)


def co_deformable_detr_swin_t_36e() -> Recipe:
    """Co-Deformable-DETR, Swin-T, 36 epochs; published AP 54.1."""
    options: dict[str, bool | int | float | str] = {"drop_path": 0.3}
    multipliers = {"sampling_offsets": 0.1}
    return _recipe("co_deformable_detr_swin_t", 2e-4, 36, 30, multipliers, decay=0.05, options=options)


def co_deformable_detr_swin_l_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-L, 12 epochs; published AP 56.9."""
    return _recipe("co_deformable_detr_swin_l", 2e-4, 12, 11, {"sampling_offsets": 0.1}, decay=0.05)


def co_dino_5scale_r50_12e() -> Recipe:
    """Co-DINO, ResNet-50, 12 epochs; published AP 52.1."""
    return _recipe("co_dino_5scale_r50", 2e-4, 12, 11, options={"recomputed_layers": 4})


def co_dino_5scale_swin_l_12e() -> Recipe:
    """Co-DINO, Swin-L, 12 epochs; published AP 58.9."""
    return _recipe("co_dino_5scale_swin_l", 2e-4, 12, 11, options={"recomputed_layers": 6})


def co_dino_5scale_swin_l_36e() -> Recipe:
    """Co-DINO, Swin-L, 36 epochs; published AP 60.0."""
    options: dict[str, bool | int | float | str] = {"recomputed_layers": 6, "drop_path": 0.6}
    return _recipe("co_dino_5scale_swin_l", 2e-4, 36, 30, options=options)


RECIPES = (
    deformable_detr_r50_50e,
    deformable_detr_refine_r50_50e,
    deformable_detr_twostage_r50_50e,
    conditional_detr_r50_50e,
    dab_detr_r50_50e,
    dino_r50_12e,
    dino_r50_24e,
    dino_r50_36e,
    dino_r50_improved_12e,
    dino_5scale_swin_l_12e,
    co_deformable_detr_r50_12e,
    co_deformable_detr_swin_t_12e,
    co_deformable_detr_swin_t_36e,
    co_deformable_detr_swin_l_12e,
    co_dino_5scale_r50_12e,
    co_dino_5scale_swin_l_12e,
    co_dino_5scale_swin_l_36e,
)
