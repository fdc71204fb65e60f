"""The general recipe for fine-tuning any model on your own data, of hundreds to some ten thousand images."""

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
from poise.recipes.values import OptionValue

RELU_SIDES = ("autoassign_", "dw_", "fcos_", "ota_")  # models whose distances to the sides are clamped by a ReLU


def _training_options(model: str) -> dict[str, OptionValue]:
    """Options that make short trainings reliable: a published ReLU can close the sides of all boxes for good."""
    return {"openable_sides": True} if model.startswith(RELU_SIDES) else {}


def for_model(recipe: Recipe, model: str) -> Recipe:
    """Return the recipe without options that fine-tuning sets for its model and that ``model`` does not have."""
    unknown = _training_options(recipe.model.name).keys() - _training_options(model).keys()
    options = {name: value for name, value in recipe.model.options.items() if name not in unknown}
    return replace(recipe, model=replace(recipe.model, options=options))


TINY = "atss_tiny_fpn"  # the model of the network inside the package


def finetune(model: str, epochs: int = 50, image_size: int | None = None) -> Recipe:
    """AdamW with a cosine over ``epochs``, EMA and mild augmentation, from an ImageNet backbone.

    ``atss_tiny_fpn`` starts from the network inside the package instead, with smaller batches at a higher rate.

    Args:
        model: a name of ``poise.list_models()``.
        epochs: passes over the training images.
        image_size: limit of both sides of an image in pixels; None: 320 for ``atss_tiny_fpn``, 640 for all others.

    Not a published recipe: its settings are poise's own. The warm-up takes at most a tenth of the training, so
    that it is short on small data sets.
    """
    tiny = model == TINY
    return Recipe(
        model=ModelSettings(
            model,
            backbone_weights="none" if tiny else "imagenet",
            weights="demo" if tiny else "",
            image_size=(image_size or (320 if tiny else 640),),
            options=_training_options(model),
        ),
        data=DataSettings(batch_size=8 if tiny else 16),
        augment=AugmentSettings(flip=0.5, photometric=0.5),
        optimizer=OptimizerSettings(
            "adamw", lr=4e-3 if tiny else 5e-4, weight_decay=0.05, norm_decay_multiplier=0.0, bias_decay_multiplier=0.0
        ),
        schedule=ScheduleSettings(
            epochs, "cosine", milestones=(), min_lr_ratio=0.01, warmup_steps=500, warmup_max_fraction=0.1
        ),
        train=TrainSettings(clip_norm=10.0, ema_decay=0.9998),
        evaluate=EvaluateSettings(every=max(1, epochs // 25)),
    )
