"""GFL's published COCO recipes."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, two_x
from poise.recipes.settings import Recipe


def gfl_r50_fpn_1x() -> Recipe:
    """GFL, ResNet-50, 12 epochs at 1333x800; published AP 40.2."""
    return coco_recipe("gfl_r50_fpn")


def gfl_r50_fpn_ms_2x() -> Recipe:
    """GFL, ResNet-50, 24 epochs, shorter side 480 to 800; published AP 42.9."""
    return coco_recipe("gfl_r50_fpn", two_x(), augment=multi_scale(480, 800))


def gfl_r101_fpn_ms_2x() -> Recipe:
    """GFL, ResNet-101, 24 epochs, shorter side 480 to 800; published AP 44.7."""
    return coco_recipe("gfl_r101_fpn", two_x(), augment=multi_scale(480, 800))


def gfl_r101_dcn_fpn_ms_2x() -> Recipe:
    """GFL, deformable ResNet-101, 24 epochs, shorter side 480 to 800; published AP 47.1."""
    return coco_recipe("gfl_r101_dcn_fpn", two_x(), augment=multi_scale(480, 800))


RECIPES = (gfl_r50_fpn_1x, gfl_r50_fpn_ms_2x, gfl_r101_fpn_ms_2x, gfl_r101_dcn_fpn_ms_2x)
