"""NanoDet-Plus's published COCO recipes, and one for fine-tuning on the CPU."""

from __future__ import annotations

from poise.recipes.augment import AugmentSettings
from poise.recipes.settings import (
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    TrainSettings,
)

WARP = AugmentSettings(flip=0.5, warp_scale=(0.6, 1.4), warp_stretch=(0.8, 1.2), warp_shift=0.2, recolor=0.5)


def _published(model: str) -> Recipe:
    """One GPU, 96 images per step, weight decay on every parameter, EMA with decay 0.9998."""
    return Recipe(
        model=ModelSettings(model, backbone_weights="imagenet"),
        data=DataSettings(batch_size=96, drop_last=True),
        augment=WARP,
        optimizer=OptimizerSettings("adamw", lr=1e-3, lr_batch_size=96, weight_decay=0.05),
        schedule=ScheduleSettings(
            300, "cosine", milestones=(), min_lr_ratio=0.05, by_epoch=True, warmup_steps=500, warmup_ratio=1e-4
        ),
        train=TrainSettings(clip_norm=35.0, ema_decay=0.9998),
        evaluate=EvaluateSettings(every=10),
    )


def nanodet_plus_m_320_coco() -> Recipe:
    """NanoDet-Plus-m, 300 epochs at 320x320; published AP 27.0."""
    return _published("nanodet_plus_m_320")


def nanodet_plus_m_416_coco() -> Recipe:
    """NanoDet-Plus-m, 300 epochs at 416x416; published AP 30.4."""
    return _published("nanodet_plus_m_416")


def nanodet_plus_m_1_5x_320_coco() -> Recipe:
    """NanoDet-Plus-m-1.5x, 300 epochs at 320x320; published AP 29.9."""
    return _published("nanodet_plus_m_1_5x_320")


def nanodet_plus_m_1_5x_416_coco() -> Recipe:
    """NanoDet-Plus-m-1.5x, 300 epochs at 416x416; published AP 34.1."""
    return _published("nanodet_plus_m_1_5x_416")


def nanodet_plus_m_320_finetune() -> Recipe:
    """NanoDet-Plus-m at 320x320 on hundreds of your own images, in minutes on a CPU; give --weights.

    Not a published recipe. Published weights lack the assign guidance module (AGM), and their box predictions are good
    from the start. So the head's own predictions are used for the assignment, at half the cost of a step.
    """
    return Recipe(
        model=ModelSettings("nanodet_plus_m_320", options={"guide_depth": 0}),
        data=DataSettings(batch_size=8, workers=1),
        augment=WARP,
        optimizer=OptimizerSettings("adamw", lr=7e-4, lr_batch_size=0, weight_decay=0.05),
        schedule=ScheduleSettings(20, "cosine", milestones=(), min_lr_ratio=0.05, warmup_steps=50, warmup_ratio=1e-3),
        train=TrainSettings(clip_norm=35.0, ema_decay=0.998, ema_ramp_steps=50.0),
        evaluate=EvaluateSettings(every=2, metric="ap50"),
    )


RECIPES = (
    nanodet_plus_m_320_coco,
    nanodet_plus_m_416_coco,
    nanodet_plus_m_1_5x_320_coco,
    nanodet_plus_m_1_5x_416_coco,
    nanodet_plus_m_320_finetune,
)
