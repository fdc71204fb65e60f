"""Recipes: the settings of a training run as typed frozen dataclasses, returned by functions.

Each name is loaded when it is first used: the command line reads values of options without the recipes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.recipes.augment import AugmentSettings
    from poise.recipes.catalog import describe_recipe, get_recipe, list_recipes
    from poise.recipes.convert import differences, from_dict, load_recipe, save_recipe, to_dict, with_settings
    from poise.recipes.fine_tuning import finetune
    from poise.recipes.settings import (
        DataSettings,
        EvaluateSettings,
        ModelSettings,
        OptimizerSettings,
        Recipe,
        ScheduleSettings,
        TrainSettings,
    )

_ROOMS = {
    "augment": ("AugmentSettings",),
    "catalog": ("describe_recipe", "get_recipe", "list_recipes"),
    "convert": ("differences", "from_dict", "load_recipe", "save_recipe", "to_dict", "with_settings"),
    "fine_tuning": ("finetune",),
    "settings": (
        *("DataSettings", "EvaluateSettings", "ModelSettings", "OptimizerSettings"),
        *("Recipe", "ScheduleSettings", "TrainSettings"),
    ),
}
_FILE_OF = {name: file for file, names in _ROOMS.items() for name in names}

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


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"poise.recipes.{_FILE_OF[name]}"), name)
    globals()[name] = value
    return value
