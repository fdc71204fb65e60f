"""TOOD's published COCO recipes (AP on val2017 as published by MMDetection, anchor-free form)."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, two_x
from poise.recipes.settings import Recipe


def tood_r50_fpn_1x() -> Recipe:
    """TOOD, ResNet-50, 12 epochs at 1333x800; published AP 42.4."""
    return coco_recipe("tood_r50_fpn")


def tood_r50_fpn_ms_2x() -> Recipe:
    """TOOD, ResNet-50, 24 epochs, shorter side 480 to 800; published AP 44.5 (anchor-based form)."""
    return coco_recipe("tood_r50_fpn", two_x(), augment=multi_scale(480, 800))


def tood_r101_fpn_ms_2x() -> Recipe:
    """TOOD, ResNet-101, 24 epochs, shorter side 480 to 800; published AP 46.1."""
    return coco_recipe("tood_r101_fpn", two_x(), augment=multi_scale(480, 800))


RECIPES = (tood_r50_fpn_1x, tood_r50_fpn_ms_2x, tood_r101_fpn_ms_2x)
