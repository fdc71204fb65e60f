"""GFLv2's published COCO recipes (the authors' AP on val2017).

The originals start from open-mmlab's ResNeXt and Res2Net; these recipes start from timm's weights of the same networks.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, two_x
from poise.recipes.settings import Recipe


def _ms_2x(model: str) -> Recipe:
    return coco_recipe(model, two_x(), augment=multi_scale(480, 960))


def gflv2_r50_fpn_1x() -> Recipe:
    """GFLv2, ResNet-50, 12 epochs at 1333x800; published AP 41.0."""
    return coco_recipe("gflv2_r50_fpn")


def gflv2_r50_fpn_ms_2x() -> Recipe:
    """GFLv2, ResNet-50, 24 epochs, shorter side 480 to 960; published AP 43.9."""
    return _ms_2x("gflv2_r50_fpn")


def gflv2_r101_fpn_ms_2x() -> Recipe:
    """GFLv2, ResNet-101, 24 epochs, shorter side 480 to 960; published AP 45.8."""
    return _ms_2x("gflv2_r101_fpn")


def gflv2_r101_dcn_fpn_ms_2x() -> Recipe:
    """GFLv2, deformable ResNet-101, 24 epochs, shorter side 480 to 960; published AP 48.0."""
    return _ms_2x("gflv2_r101_dcn_fpn")


def gflv2_x101_32x4d_dcn_fpn_ms_2x() -> Recipe:
    """GFLv2, ResNeXt-101 32x4d with two deformable stages, 24 epochs, 480 to 960; published AP 48.8."""
    return _ms_2x("gflv2_x101_32x4d_dcn_fpn")


def gflv2_r2_101_dcn_fpn_ms_2x() -> Recipe:
    """GFLv2, Res2Net-101 with two deformable stages, 24 epochs, shorter side 480 to 960; published AP 49.9."""
    return _ms_2x("gflv2_r2_101_dcn_fpn")


RECIPES = (
    gflv2_r50_fpn_1x,
    gflv2_r50_fpn_ms_2x,
    gflv2_r101_fpn_ms_2x,
    gflv2_r101_dcn_fpn_ms_2x,
    gflv2_x101_32x4d_dcn_fpn_ms_2x,
    gflv2_r2_101_dcn_fpn_ms_2x,
)
