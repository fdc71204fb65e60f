"""Recipes for small data sets on a small machine: hundreds of images, a few CPU cores, minutes."""

from __future__ import annotations

from pathlib import Path

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
from poise.suggestions import plural

MODEL = "atss_tiny_fpn"
MOST_IMAGES, MOST_CORES = 2_000, 8  # of a small data set and a small machine


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor has instructions for bfloat16 (AVX-512 BF16, AMX, ARM's BF16); None: not known."""
    return "bf16" in cpuinfo.read_text() if cpuinfo.is_file() else None


def small_data() -> Recipe:
    """ATSS on a tiny ResNet at 320 px for hundreds of images on a CPU, from the network inside the package."""
    return Recipe(
        model=ModelSettings(MODEL, weights="demo", image_size=(320,)),
        data=DataSettings(batch_size=8, eval_batch_size=16, workers=0),
        augment=AugmentSettings(flip=0.5, scale_jitter=(0.7, 1.4)),
        optimizer=OptimizerSettings(
            "adamw", lr=4e-3, lr_batch_size=0, weight_decay=0.05, norm_decay_multiplier=0.0, bias_decay_multiplier=0.0
        ),
        schedule=ScheduleSettings(
            60, "cosine", milestones=(), min_lr_ratio=0.01, warmup_steps=100, warmup_max_fraction=0.1
        ),
        train=TrainSettings(
            clip_norm=10.0,
            precision="bf16" if has_bfloat16() else "fp32",
            ema_decay=0.998,
            ema_ramp="ratio",
            channels_last=True,
        ),
        evaluate=EvaluateSettings(every=0),
    )


def small_data_hint(recipe: Recipe, images: int, cores: int) -> tuple[str, ...]:
    """The line of a plan that proposes ``small_data`` for a training on a CPU; empty where it does not apply.

    It does not apply to more than ``MOST_IMAGES`` training images, more than ``MOST_CORES`` cores, trainings that start
    from weights of a whole detector, and the model of the recipe itself.
    """
    if images > MOST_IMAGES or cores > MOST_CORES or recipe.model.weights or recipe.model.name == MODEL:
        return ()
    machine = f"{images:,} training images on {plural(cores, 'CPU core')}"
    return (f"hint: {machine}: 'poise train {small_data.__name__}' learns more in the same minutes (docs/training.md)",)


def precision_hint(recipe: Recipe, bfloat16: bool | None) -> tuple[str, ...]:
    """The line of a plan that proposes fp32 for a training in bf16 on a CPU; empty where it does not apply.

    Args:
        recipe: the recipe of the training.
        bfloat16: ``has_bfloat16`` of the processor.
    """
    if recipe.train.precision != "bf16" or bfloat16 is not False:
        return ()
    return ("hint: this processor has no instructions for bf16: --precision fp32 takes less time",)


RECIPES = (small_data,)
