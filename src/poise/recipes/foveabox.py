"""FoveaBox's published COCO recipes, in the plain form (AP on val2017 as published by MMDetection)."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, two_x
from poise.recipes.settings import Recipe


def foveabox_r50_fpn_1x() -> Recipe:
    """FoveaBox, ResNet-50, 12 epochs at 1333x800; published AP 36.5."""
    return coco_recipe("foveabox_r50_fpn")


def foveabox_r50_fpn_2x() -> Recipe:
    """FoveaBox, ResNet-50, 24 epochs at 1333x800; published AP 37.2."""
    return coco_recipe("foveabox_r50_fpn", two_x())


def foveabox_r101_fpn_1x() -> Recipe:
    """FoveaBox, ResNet-101, 12 epochs at 1333x800; published AP 38.6."""
    return coco_recipe("foveabox_r101_fpn")


def foveabox_r101_fpn_2x() -> Recipe:
    """FoveaBox, ResNet-101, 24 epochs at 1333x800; published AP 40.0."""
    return coco_recipe("foveabox_r101_fpn", two_x())


RECIPES = (foveabox_r50_fpn_1x, foveabox_r50_fpn_2x, foveabox_r101_fpn_1x, foveabox_r101_fpn_2x)
