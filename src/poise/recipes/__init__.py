"""Recipes: the settings of a training run as typed frozen dataclasses, returned by functions."""

from poise.recipes.augment import AugmentSettings
from poise.recipes.catalog import describe_recipe, get_recipe, list_recipes
from poise.recipes.convert import differences, from_dict, load_recipe, save_recipe, to_dict, with_settings
from poise.recipes.finetune import finetune
from poise.recipes.settings import (
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    TrainSettings,
)

__all__ = [
    "AugmentSettings",
    "DataSettings",
    "EvaluateSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "ScheduleSettings",
    "TrainSettings",
    "with_settings",
    "describe_recipe",
    "differences",
    "finetune",
    "from_dict",
    "get_recipe",
    "list_recipes",
    "load_recipe",
    "save_recipe",
    "to_dict",
]
