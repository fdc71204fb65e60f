"""PAA's published COCO recipes (AP on val2017 as published by MMDetection, with score voting)."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, two_x
from poise.recipes.settings import Recipe, ScheduleSettings

ONE_AND_A_HALF = ScheduleSettings(18, milestones=(12, 16))
THREE_X = ScheduleSettings(36, milestones=(28, 34))


def paa_r50_fpn_1x() -> Recipe:
    """PAA, ResNet-50, 12 epochs at 1333x800; published AP 40.4."""
    return coco_recipe("paa_r50_fpn")


def paa_r50_fpn_1_5x() -> Recipe:
    """PAA, ResNet-50, 18 epochs at 1333x800; published AP 41.4."""
    return coco_recipe("paa_r50_fpn", ONE_AND_A_HALF)


def paa_r50_fpn_2x() -> Recipe:
    """PAA, ResNet-50, 24 epochs at 1333x800; published AP 41.6."""
    return coco_recipe("paa_r50_fpn", two_x())


def paa_r50_fpn_ms_3x() -> Recipe:
    """PAA, ResNet-50, 36 epochs, shorter side 640 to 800; published AP 43.3."""
    return coco_recipe("paa_r50_fpn", THREE_X, augment=multi_scale(640, 800))


def paa_r101_fpn_1x() -> Recipe:
    """PAA, ResNet-101, 12 epochs at 1333x800; published AP 42.6."""
    return coco_recipe("paa_r101_fpn")


def paa_r101_fpn_2x() -> Recipe:
    """PAA, ResNet-101, 24 epochs at 1333x800; published AP 43.5."""
    return coco_recipe("paa_r101_fpn", two_x())


def paa_r101_fpn_ms_3x() -> Recipe:
    """PAA, ResNet-101, 36 epochs, shorter side 640 to 800; published AP 45.1."""
    return coco_recipe("paa_r101_fpn", THREE_X, augment=multi_scale(640, 800))


RECIPES = (
    paa_r50_fpn_1x,
    paa_r50_fpn_1_5x,
    paa_r50_fpn_2x,
    paa_r50_fpn_ms_3x,
    paa_r101_fpn_1x,
    paa_r101_fpn_2x,
    paa_r101_fpn_ms_3x,
)
