"""RetinaNet's published COCO recipes (AP on val2017 as published by MMDetection)."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, two_x
from poise.recipes.settings import Recipe


def retinanet_r50_fpn_1x() -> Recipe:
    """RetinaNet, ResNet-50, 12 epochs at 1333x800; published AP 36.5."""
    return coco_recipe("retinanet_r50_fpn")


def retinanet_r50_fpn_2x() -> Recipe:
    """RetinaNet, ResNet-50, 24 epochs at 1333x800; published AP 37.4."""
    return coco_recipe("retinanet_r50_fpn", two_x())


def retinanet_r101_fpn_1x() -> Recipe:
    """RetinaNet, ResNet-101, 12 epochs at 1333x800; published AP 38.5."""
    return coco_recipe("retinanet_r101_fpn")


def retinanet_r101_fpn_2x() -> Recipe:
    """RetinaNet, ResNet-101, 24 epochs at 1333x800; published AP 38.9."""
    return coco_recipe("retinanet_r101_fpn", two_x())


RECIPES = (retinanet_r50_fpn_1x, retinanet_r50_fpn_2x, retinanet_r101_fpn_1x, retinanet_r101_fpn_2x)
