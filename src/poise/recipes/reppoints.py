"""RepPoints' published COCO recipes, in the moment form (AP on val2017 as published by MMDetection)."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, two_x
from poise.recipes.settings import Recipe


def reppoints_r50_fpn_1x() -> Recipe:
    """RepPoints, ResNet-50, without group norms, 12 epochs at 1333x800; published AP 37.0."""
    return coco_recipe("reppoints_r50_fpn")


def reppoints_r50_gn_fpn_1x() -> Recipe:
    """RepPoints, ResNet-50, 12 epochs at 1333x800; published AP 38.1."""
    return coco_recipe("reppoints_r50_gn_fpn")


def reppoints_r50_gn_fpn_2x() -> Recipe:
    """RepPoints, ResNet-50, 24 epochs at 1333x800; published AP 38.6."""
    return coco_recipe("reppoints_r50_gn_fpn", two_x())


def reppoints_r101_gn_fpn_2x() -> Recipe:
    """RepPoints, ResNet-101, 24 epochs at 1333x800; published AP 40.5."""
    return coco_recipe("reppoints_r101_gn_fpn", two_x())


def reppoints_r101_dcn_gn_fpn_2x() -> Recipe:
    """RepPoints, deformable ResNet-101, 24 epochs at 1333x800; published AP 42.9."""
    return coco_recipe("reppoints_r101_dcn_gn_fpn", two_x())


def reppoints_x101_32x4d_dcn_gn_fpn_2x() -> Recipe:
    """RepPoints, deformable ResNeXt-101 32x4d, 24 epochs at 1333x800; published AP 44.2."""
    return coco_recipe("reppoints_x101_32x4d_dcn_gn_fpn", two_x())


RECIPES = (
    reppoints_r50_fpn_1x,
    reppoints_r50_gn_fpn_1x,
    reppoints_r50_gn_fpn_2x,
    reppoints_r101_gn_fpn_2x,
    reppoints_r101_dcn_gn_fpn_2x,
    reppoints_x101_32x4d_dcn_gn_fpn_2x,
)
