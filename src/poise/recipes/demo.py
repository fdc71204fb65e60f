"""The recipe of ``poise demo``: a small detector from random weights, on generated scenes, within minutes on a CPU."""

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


def demo(epochs: int = 20) -> Recipe:
    """ATSS on a tiny ResNet at 160 pixels; AdamW with a cosine and averaged weights.

    The batches are small, because from random weights the number of steps matters most.
    """
    return Recipe(
        model=ModelSettings(
            "atss_r18_fpn",
            image_size=(160,),
            options={"backbone": "test_resnet", "channels": 64, "depth": 1},
        ),
        data=DataSettings(batch_size=8, eval_batch_size=16, workers=0),
        augment=AugmentSettings(flip=0.5),
        optimizer=OptimizerSettings(
            "adamw", lr=3e-3, lr_batch_size=0, weight_decay=0.05, norm_decay_multiplier=0.0, bias_decay_multiplier=0.0
        ),
        schedule=ScheduleSettings(
            epochs, "cosine", milestones=(), min_lr_ratio=0.01, warmup_steps=50, warmup_max_fraction=0.1
        ),
        train=TrainSettings(clip_norm=10.0, ema_decay=0.995, ema_ramp="ratio", channels_last=True, save_minutes=0),
        evaluate=EvaluateSettings(every=0, pictures=8),
    )
