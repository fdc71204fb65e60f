"""Recipes by name."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable

from poise.models.table import model_rows
from poise.plugins import added_names, load_plugins
from poise.recipes import (
    atss,
    autoassign,
    claims,
    co_detr,
    dense_one_to_one,
    detr,
    dw,
    faster_rcnn,
    fcos,
    foveabox,
    freeanchor,
    gfl,
    gflv2,
    libra_rcnn,
    nanodet_plus,
    ota,
    paa,
    reppoints,
    retinanet,
    small_data,
    tood,
    vfnet,
    yolox,
)
from poise.recipes.fine_tuning import finetune
from poise.recipes.settings import Recipe
from poise.suggestions import did_you_mean

RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function
    for paper in (
        retinanet,
        fcos,
        atss,
        gfl,
        gflv2,
        nanodet_plus,
        faster_rcnn,
        libra_rcnn,
        dw,
        vfnet,
        tood,
        foveabox,
        reppoints,
        autoassign,
        detr,
        dense_one_to_one,
        co_detr,
        ota,
        yolox,
        freeanchor,
        paa,
        claims,
        small_data,
    )
    for function in paper.RECIPES
}


def list_recipes(pattern: str = "*") -> list[str]:
    """List the published recipes that match a shell pattern, sorted. The name of every model is a recipe as well."""
    load_plugins()
    return sorted(fnmatch.filter(RECIPES, pattern))


def describe_recipe(name: str) -> str:
    """Return one line about a published recipe."""
    return (RECIPES[name].__doc__ or "").splitlines()[0]


def get_recipe(name: str) -> Recipe:
    """Return the recipe of this name.

    Args:
        name: a published recipe (``atss_r50_fpn_1x``), a model (``atss_r18_fpn``: the general fine-tuning recipe), or
            ``module:function``, a function of your own that returns a ``Recipe``.

    Raises:
        ValueError: no such name; a similar one is suggested.
    """
    if ":" in name:
        return _own_recipe(name)
    if name not in RECIPES and name not in model_rows():
        load_plugins()
    models = [*model_rows(), *added_names("model")]
    if name in RECIPES:
        return RECIPES[name]()
    if name in models:
        return finetune(name)
    known = [*RECIPES, *models]
    raise ValueError(f"no recipe or model '{name}'{did_you_mean(name, known)}; 'poise recipes' lists them")


def _own_recipe(name: str) -> Recipe:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"recipe '{name}': {error}; it must be module:function and importable") from error
    recipe = function()
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe '{name}' returned a {type(recipe).__name__}, not a poise.recipes.Recipe")
    return recipe
