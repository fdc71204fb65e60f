"""DW's published COCO recipes: no decay on normalization layers, 1,000 steps of warm-up.

The published AP was reached by the authors' code on eight GPUs with two images each.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, one_x, two_x
from poise.recipes.settings import OptimizerSettings, Recipe

SGD = OptimizerSettings("sgd", lr=0.01, norm_decay_multiplier=0.0)
STEPS = 1000


def dw_r50_fpn_norefine_1x() -> Recipe:
    """DW without box refinement, ResNet-50, 12 epochs at 1333x800; published AP 41.5."""
    return coco_recipe("dw_r50_fpn_norefine", one_x(warmup_steps=STEPS), SGD)


def dw_r50_fpn_1x() -> Recipe:
    """DW, ResNet-50, 12 epochs at 1333x800; published AP 42.1."""
    return coco_recipe("dw_r50_fpn", one_x(warmup_steps=STEPS), SGD)


def dw_r50_fpn_ms_2x() -> Recipe:
    """DW, ResNet-50, 24 epochs, shorter side 480 to 960; published AP 44.8."""
    return coco_recipe("dw_r50_fpn", two_x(warmup_steps=STEPS), SGD, multi_scale(480, 960))


def dw_r50_dcn_fpn_ms_2x() -> Recipe:
    """DW, deformable ResNet-50 and towers, 24 epochs, shorter side 480 to 960; published AP 47.9."""
    return coco_recipe("dw_r50_dcn_fpn", two_x(warmup_steps=STEPS), SGD, multi_scale(480, 960))


def dw_r101_fpn_norefine_ms_2x() -> Recipe:
    """DW without box refinement, ResNet-101, 24 epochs, shorter side 480 to 960; published AP 46.1."""
    return coco_recipe("dw_r101_fpn_norefine", two_x(warmup_steps=STEPS), SGD, multi_scale(480, 960))


RECIPES = (
    dw_r50_fpn_norefine_1x,
    dw_r50_fpn_1x,
    dw_r50_fpn_ms_2x,
    dw_r50_dcn_fpn_ms_2x,
    dw_r101_fpn_norefine_ms_2x,
)
