"""FreeAnchor's published COCO recipes: RetinaNet's with gradients cut at norm 35 (AP as published by MMDetection)."""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.coco import coco_recipe
from poise.recipes.settings import Recipe


def freeanchor_r50_fpn_1x() -> Recipe:
    """FreeAnchor, ResNet-50, 12 epochs at 1333x800; published AP 38.7."""
    return _clipped("freeanchor_r50_fpn")


def freeanchor_r101_fpn_1x() -> Recipe:
    """FreeAnchor, ResNet-101, 12 epochs at 1333x800; published AP 40.3."""
    return _clipped("freeanchor_r101_fpn")


def freeanchor_x101_32x4d_fpn_1x() -> Recipe:
    """FreeAnchor, ResNeXt-101, 12 epochs at 1333x800; published AP 41.9."""
    return _clipped("freeanchor_x101_32x4d_fpn")


def _clipped(model: str) -> Recipe:
    recipe = coco_recipe(model)
    return replace(recipe, train=replace(recipe.train, clip_norm=35.0))


RECIPES = (freeanchor_r50_fpn_1x, freeanchor_r101_fpn_1x, freeanchor_x101_32x4d_fpn_1x)
