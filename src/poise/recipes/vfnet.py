"""VarifocalNet's published COCO recipes: biases learn twice as fast and do not decay; warm-up from a tenth of the rate.

The last four are other detectors with the varifocal loss in place of the focal loss, everything else being their own.
AP is the authors' on val2017, with all classes of the best priors kept before NMS (``preselect="priors"``).
The originals start from open-mmlab's ResNeXt and Res2Net; these recipes start from timm's weights of the same networks.
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.coco import coco_recipe, multi_scale, one_x, two_x
from poise.recipes.settings import OptimizerSettings, Recipe

SGD = OptimizerSettings("sgd", lr=0.01, bias_lr_multiplier=2.0, bias_decay_multiplier=0.0)
RATIO = 0.1


def _ms_2x(model: str) -> Recipe:
    return coco_recipe(model, two_x(RATIO), SGD, multi_scale(480, 960))


def vfnet_r50_fpn_1x() -> Recipe:
    """VarifocalNet, ResNet-50, 12 epochs at 1333x800; published AP 41.6."""
    return coco_recipe("vfnet_r50_fpn", one_x(RATIO), SGD)


def vfnet_r50_fpn_ms_2x() -> Recipe:
    """VarifocalNet, ResNet-50, 24 epochs, shorter side 480 to 960; published AP 44.5."""
    return _ms_2x("vfnet_r50_fpn")


def vfnet_r50_dcn_fpn_ms_2x() -> Recipe:
    """VarifocalNet, deformable ResNet-50, 24 epochs, shorter side 480 to 960; published AP 47.8."""
    return _ms_2x("vfnet_r50_dcn_fpn")


def vfnet_r101_fpn_1x() -> Recipe:
    """VarifocalNet, ResNet-101, 12 epochs at 1333x800; published AP 43.0."""
    return coco_recipe("vfnet_r101_fpn", one_x(RATIO), SGD)


def vfnet_r101_fpn_2x() -> Recipe:
    """VarifocalNet, ResNet-101, 24 epochs at 1333x800; published AP 43.5."""
    return coco_recipe("vfnet_r101_fpn", two_x(RATIO), SGD)


def vfnet_r101_fpn_ms_2x() -> Recipe:
    """VarifocalNet, ResNet-101, 24 epochs, shorter side 480 to 960; published AP 46.2."""
    return _ms_2x("vfnet_r101_fpn")


def vfnet_r101_dcn_fpn_ms_2x() -> Recipe:
    """VarifocalNet, deformable ResNet-101, 24 epochs, shorter side 480 to 960; published AP 49.0."""
    return _ms_2x("vfnet_r101_dcn_fpn")


def vfnet_x101_32x4d_fpn_ms_2x() -> Recipe:
    """VarifocalNet, ResNeXt-101 32x4d, 24 epochs, shorter side 480 to 960; published AP 47.4."""
    return _ms_2x("vfnet_x101_32x4d_fpn")


def vfnet_x101_32x4d_dcn_fpn_ms_2x() -> Recipe:
    """VarifocalNet, deformable ResNeXt-101 32x4d, 24 epochs, shorter side 480 to 960; published AP 49.7."""
    return _ms_2x("vfnet_x101_32x4d_dcn_fpn")


def vfnet_x101_64x4d_fpn_ms_2x() -> Recipe:
    """VarifocalNet, ResNeXt-101 64x4d, 24 epochs, shorter side 480 to 960; published AP 48.2."""
    return _ms_2x("vfnet_x101_64x4d_fpn")


def vfnet_x101_64x4d_dcn_fpn_ms_2x() -> Recipe:
    """VarifocalNet, deformable ResNeXt-101 64x4d, 24 epochs, shorter side 480 to 960; published AP 50.4."""
    return _ms_2x("vfnet_x101_64x4d_dcn_fpn")


def vfnet_r2_101_fpn_ms_2x() -> Recipe:
    """VarifocalNet, Res2Net-101, 24 epochs, shorter side 480 to 960; published AP 49.2."""
    return _ms_2x("vfnet_r2_101_fpn")


def vfnet_r2_101_dcn_fpn_ms_2x() -> Recipe:
    """VarifocalNet, deformable Res2Net-101, 24 epochs, shorter side 480 to 960; published AP 51.1."""
    return _ms_2x("vfnet_r2_101_dcn_fpn")


def _varifocal(model: str, warmup_ratio: float = RATIO) -> Recipe:
    """Another detector with the varifocal loss (the article's table 1)."""
    recipe = coco_recipe(model, one_x(warmup_ratio))
    return replace(recipe, model=replace(recipe.model, options={"class_loss": "varifocal"}))


def retinanet_r50_fpn_varifocal_1x() -> Recipe:
    """RetinaNet with the varifocal loss, ResNet-50, 12 epochs; published AP 37.4 (36.5 with the focal loss)."""
    return _varifocal("retinanet_r50_fpn")


def foveabox_r50_fpn_varifocal_1x() -> Recipe:
    """FoveaBox with the varifocal loss, ResNet-50, 12 epochs; published AP 37.2 (36.3 with the focal loss)."""
    return _varifocal("foveabox_r50_fpn")


def reppoints_r50_gn_fpn_varifocal_1x() -> Recipe:
    """RepPoints with the varifocal loss, ResNet-50, 12 epochs; published AP 39.7 (38.3 with the focal loss)."""
    return _varifocal("reppoints_r50_gn_fpn")


def atss_r50_fpn_varifocal_1x() -> Recipe:
    """ATSS with the varifocal loss, ResNet-50, 12 epochs; published AP 40.2 (39.3 with the focal loss)."""
    return _varifocal("atss_r50_fpn", 0.001)


RECIPES = (
    vfnet_r50_fpn_1x,
    vfnet_r50_fpn_ms_2x,
    vfnet_r50_dcn_fpn_ms_2x,
    vfnet_r101_fpn_1x,
    vfnet_r101_fpn_2x,
    vfnet_r101_fpn_ms_2x,
    vfnet_r101_dcn_fpn_ms_2x,
    vfnet_x101_32x4d_fpn_ms_2x,
    vfnet_x101_32x4d_dcn_fpn_ms_2x,
    vfnet_x101_64x4d_fpn_ms_2x,
    vfnet_x101_64x4d_dcn_fpn_ms_2x,
    vfnet_r2_101_fpn_ms_2x,
    vfnet_r2_101_dcn_fpn_ms_2x,
    retinanet_r50_fpn_varifocal_1x,
    foveabox_r50_fpn_varifocal_1x,
    reppoints_r50_gn_fpn_varifocal_1x,
    atss_r50_fpn_varifocal_1x,
)
