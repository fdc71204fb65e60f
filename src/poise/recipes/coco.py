"""The COCO recipe that dense detectors share (MMDetection's): SGD, 16 images a step, "1x" is 12 epochs."""

from __future__ import annotations

from poise.recipes.augment import AugmentSettings
from poise.recipes.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
)

# COCO has a few boxes without area, which the originals leave out as well.
COCO = DataSettings(batch_size=16, keep_empty=False, min_side=32, group_by_aspect=True, on_bad_data="skip")


def coco_recipe(
    model: str,
    schedule: ScheduleSettings | None = None,
    optimizer: OptimizerSettings | None = None,
    augment: AugmentSettings | None = None,
) -> Recipe:
    """Make a recipe with an ImageNet backbone, the shared settings, and those that a paper changes."""
    return Recipe(
        model=ModelSettings(model, backbone_weights="imagenet"),
        data=COCO,
        augment=augment or AugmentSettings(flip=0.5),
        optimizer=optimizer or OptimizerSettings("sgd", lr=0.01),
        schedule=schedule or one_x(),
    )


def one_x(warmup_ratio: float = 0.001, warmup_steps: int = 500) -> ScheduleSettings:
    """12 epochs, the rate divided by ten after 8 and 11."""
    return ScheduleSettings(12, milestones=(8, 11), warmup_ratio=warmup_ratio, warmup_steps=warmup_steps)


def two_x(warmup_ratio: float = 0.001, warmup_steps: int = 500) -> ScheduleSettings:
    """24 epochs, the rate divided by ten after 16 and 22."""
    return ScheduleSettings(24, milestones=(16, 22), warmup_ratio=warmup_ratio, warmup_steps=warmup_steps)


def multi_scale(least: int, greatest: int) -> AugmentSettings:
    """Shorter sides drawn from a range, longer ones at most as in testing, and flips."""
    return AugmentSettings(flip=0.5, short_range=(least, greatest))
