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
    """ATSS on a tiny ResNet at 256 pixels; AdamW with a cosine and averaged weights."""
    return Recipe(
        model=ModelSettings(
            "atss_r18_fpn",
            image_size=(256,),
            options={"backbone": "test_resnet", "channels": 64, "depth": 1},
        ),
        data=DataSettings(batch=16, eval_batch=16, workers=0),
        augment=AugmentSettings(flip=0.5),
        optimizer=OptimizerSettings(
            "adamw", lr=3e-3, lr_batch=0, weight_decay=0.05, norm_decay_multiplier=0.0, bias_decay_multiplier=0.0
        ),
        schedule=ScheduleSettings(epochs, "cosine", milestones=(), final=0.01, warmup_steps=50, warmup_limit=0.1),
        train=TrainSettings(clip_norm=10.0, average_decay=0.995, average_ramp="ratio", log_every=10, save_minutes=0),
        evaluate=EvaluateSettings(every=0, pictures=8),
    )
