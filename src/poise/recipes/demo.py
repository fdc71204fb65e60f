"""The recipes of ``poise demo``: a small detector on generated scenes, within minutes on a CPU."""

from __future__ import annotations

from dataclasses import replace

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


def demo(epochs: int = 20, from_scratch: bool = False) -> Recipe:
    """ATSS on a tiny ResNet at 192 pixels; AdamW with a cosine and averaged weights.

    From scratch the images have 160 pixels, which allows more steps in the same minutes. The batches are small, because
    the number of steps matters most.

    Args:
        epochs: passes over the training images.
        from_scratch: start from random weights instead of those of the network inside the package.
    """
    weights, size = ("", 160) if from_scratch else ("demo", 192)
    return Recipe(
        model=ModelSettings("atss_tiny_fpn", weights=weights, image_size=(size,)),
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


def demo_network(epochs: int = 14) -> Recipe:
    """The recipe of the network of ``--weights demo``: the demo's model on 5,000 scenes of sixteen other classes.

    The rate stays constant, so that the averaged weights of every epoch are usable, and training can be ended anywhere.
    """
    recipe = demo(epochs, from_scratch=True)
    return replace(
        recipe,
        data=replace(recipe.data, batch_size=16),
        schedule=replace(recipe.schedule, kind="constant", warmup_steps=300, warmup_max_fraction=1.0),
        train=replace(recipe.train, precision="bf16", ema_decay=0.999, keep_every=2),
        evaluate=replace(recipe.evaluate, every=2, pictures=0),
    )
