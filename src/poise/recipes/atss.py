"""ATSS's published COCO recipes."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe
from poise.recipes.settings import Recipe


def atss_r50_fpn_1x() -> Recipe:
    """ATSS, ResNet-50, 12 epochs at 1333x800; published AP 39.4."""
    return coco_recipe("atss_r50_fpn")


def atss_r101_fpn_1x() -> Recipe:
    """ATSS, ResNet-101, 12 epochs at 1333x800; published AP 41.5."""
    return coco_recipe("atss_r101_fpn")


RECIPES = (atss_r50_fpn_1x, atss_r101_fpn_1x)
