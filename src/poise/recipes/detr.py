"""The published COCO recipes of the DETR family: AdamW, a tenth of the rate for the backbone, gradients clipped at 0.1.

Every other image is resized to a shorter side of 400 to 600 and cropped before it is resized for good. Swin backbones
start from timm's weights of the same networks. Conditional- and DAB-DETR also leave out crops without objects in the
original; here such a crop is trained as background. Co-DETR's other recipes are in ``recipes/co_detr.py``.
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.augment import AugmentSettings
from poise.recipes.coco import COCO
from poise.recipes.settings import ModelSettings, OptimizerSettings, Recipe, ScheduleSettings, TrainSettings
from poise.recipes.values import OptionValue

Options = dict[str, OptionValue]
SIDES = tuple(range(480, 801, 32))
SLOW_SAMPLING = {"sampling_offsets": 0.1, "reference_points": 0.1}  # of the rate, in Deformable-DETR's line


def detr_augment(sides: tuple[int, ...] = SIDES, longest: int = 0, crop_longest: int = 4200) -> AugmentSettings:
    """Flips, crops, and shorter sides drawn from ``sides``."""
    return AugmentSettings(flip=0.5, short_choices=sides, longest=longest, crop=0.5, crop_longest=crop_longest)


def detr_recipe(
    model: str,
    lr: float,
    epochs: int,
    drop: int,
    *,
    multipliers: dict[str, float] | None = None,
    decay: float = 1e-4,
    batch: int = 16,
    empty: bool = True,
    options: Options | None = None,
    augment: AugmentSettings | None = None,
) -> Recipe:
    """Rate and batch as published; the rate falls to a tenth after ``drop`` epochs."""
    rates = {} if multipliers is None else multipliers
    return Recipe(
        model=ModelSettings(model, backbone_weights="imagenet", options=options or {}),
        data=replace(COCO, batch_size=batch, keep_empty=empty),
        augment=augment or detr_augment(),
        optimizer=OptimizerSettings(
            "adamw", lr, lr_batch_size=batch, weight_decay=decay, backbone_lr_multiplier=0.1, lr_multipliers=rates
        ),
        schedule=ScheduleSettings(epochs, milestones=(drop,), warmup_steps=0),
        train=TrainSettings(clip_norm=0.1),
    )


def deformable_detr_r50_50e() -> Recipe:
    """Deformable-DETR, ResNet-50, 50 epochs; published AP 44.3."""
    return detr_recipe("deformable_detr_r50", 2e-4, 50, 40, multipliers=SLOW_SAMPLING, batch=32)


def deformable_detr_refine_r50_50e() -> Recipe:
    """Deformable-DETR with iterative refinement, ResNet-50, 50 epochs; published AP 46.2."""
    return detr_recipe("deformable_detr_refine_r50", 2e-4, 50, 40, multipliers=SLOW_SAMPLING, batch=32)


def deformable_detr_twostage_r50_50e() -> Recipe:
    """Two-stage Deformable-DETR, ResNet-50, 50 epochs; published AP 47.0."""
    return detr_recipe("deformable_detr_twostage_r50", 2e-4, 50, 40, multipliers={"sampling_offsets": 0.1}, batch=32)


def sqr_deformable_detr_r50_50e() -> Recipe:
    """Deformable-DETR with selective query recollection, ResNet-50, 50 epochs; published AP 45.8."""
    return detr_recipe("sqr_deformable_detr_r50", 2e-4, 50, 40, multipliers=SLOW_SAMPLING, batch=32)


def conditional_detr_r50_50e() -> Recipe:
    """Conditional-DETR, ResNet-50, 50 epochs; published AP 40.9."""
    return detr_recipe("conditional_detr_r50", 1e-4, 50, 40, empty=False, augment=detr_augment(crop_longest=1333))


def dab_detr_r50_50e() -> Recipe:
    """DAB-DETR, ResNet-50, 50 epochs; published AP 42.3."""
    return detr_recipe("dab_detr_r50", 1e-4, 50, 40, empty=False, augment=detr_augment(crop_longest=1333))


def dino_r50_12e() -> Recipe:
    """DINO, ResNet-50, 12 epochs; published AP 49.0."""
    return detr_recipe("dino_r50", 1e-4, 12, 11)


def dino_r50_24e() -> Recipe:
    """DINO, ResNet-50, 24 epochs."""
    return detr_recipe("dino_r50", 1e-4, 24, 20)


def dino_r50_36e() -> Recipe:
    """DINO, ResNet-50, 36 epochs."""
    return detr_recipe("dino_r50", 1e-4, 36, 30)


def dino_r50_improved_12e() -> Recipe:
    """DINO as MMDetection improved it, ResNet-50, 12 epochs; published AP 50.1."""
    options: Options = {"class_weight": 2.0, "denoising": 300, "frozen_stages": -1}
    options |= {"temperature": 10000.0, "offset": -0.5}
    return detr_recipe("dino_r50", 2e-4, 12, 11, multipliers={"sampling_offsets": 0.1}, options=options)


def dino_5scale_swin_l_12e() -> Recipe:
    """DINO, Swin-L, five levels, 12 epochs; published AP 57.2."""
    return detr_recipe("dino_5scale_swin_l", 1e-4, 12, 11)


RECIPES = (
    deformable_detr_r50_50e,
    deformable_detr_refine_r50_50e,
    deformable_detr_twostage_r50_50e,
    sqr_deformable_detr_r50_50e,
    conditional_detr_r50_50e,
    dab_detr_r50_50e,
    dino_r50_12e,
    dino_r50_24e,
    dino_r50_36e,
    dino_r50_improved_12e,
    dino_5scale_swin_l_12e,
)
