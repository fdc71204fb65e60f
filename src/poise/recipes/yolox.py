"""YOLOX's published schedule, on a ResNet instead of the original's backbone, so no AP is published.

The original also draws one of many input sizes every ten steps; this recipe has a single size.
"""

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

EPOCHS, PLAIN = 300, 15


def yolox_r50_fpn_300e() -> Recipe:
    """YOLOX head and schedule, ResNet-50, 300 epochs at 640x640; no AP is published."""
    return Recipe(
        model=ModelSettings("yolox_r50_fpn", backbone_weights="imagenet", options={"l1_epoch": EPOCHS - PLAIN}),
        data=DataSettings(batch_size=64, on_bad_data="skip"),
        augment=AugmentSettings(flip=0.5, photometric=1.0, mosaic=1.0, mixup=1.0, plain_epochs=PLAIN),
        optimizer=OptimizerSettings(
            "sgd",
            lr=0.01,
            lr_batch_size=64,
            nesterov=True,
            weight_decay=5e-4,
            norm_decay_multiplier=0.0,
            bias_decay_multiplier=0.0,
        ),
        schedule=ScheduleSettings(
            EPOCHS, "cosine", milestones=(), min_lr_ratio=0.05, warmup_steps=5 * 1848, warmup_ratio=1e-4
        ),
        train=TrainSettings(ema_decay=0.9998),
        evaluate=EvaluateSettings(every=10),
    )


RECIPES = (yolox_r50_fpn_300e,)
