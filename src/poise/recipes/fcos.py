"""FCOS's published COCO recipes, in the improved form (center sampling, GIoU, centerness on regression).

Biases learn twice as fast and do not decay; the warm-up begins at a third of the rate. The originals start from Caffe's
ResNet, whose weights timm does not offer: these recipes start from torchvision's. With a file of Caffe weights at hand,
``--model.options caffe True --model.backbone-weights FILE`` is the original.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, multi_scale, one_x, two_x
from poise.recipes.settings import OptimizerSettings, Recipe

SGD = OptimizerSettings("sgd", lr=0.01, bias_lr_multiplier=2.0, bias_decay_multiplier=0.0)
WARMUP = 1 / 3


def fcos_r50_fpn_1x() -> Recipe:
    """FCOS, ResNet-50, 12 epochs at 1333x800; published AP 38.7 (Caffe backbone)."""
    return coco_recipe("fcos_r50_fpn", one_x(WARMUP), SGD)


def fcos_r50_fpn_ms_2x() -> Recipe:
    """FCOS, ResNet-50, 24 epochs, shorter side 640 to 800; published AP 38.5 (Caffe backbone, base form)."""
    return coco_recipe("fcos_r50_fpn", two_x(WARMUP), SGD, multi_scale(640, 800))


def fcos_r101_fpn_1x() -> Recipe:
    """FCOS, ResNet-101, 12 epochs at 1333x800; published AP 39.1 (Caffe backbone, base form)."""
    return coco_recipe("fcos_r101_fpn", one_x(WARMUP), SGD)


def fcos_r101_fpn_ms_2x() -> Recipe:
    """FCOS, ResNet-101, 24 epochs, shorter side 640 to 800; published AP 40.8 (Caffe backbone, base form)."""
    return coco_recipe("fcos_r101_fpn", two_x(WARMUP), SGD, multi_scale(640, 800))


RECIPES = (fcos_r50_fpn_1x, fcos_r50_fpn_ms_2x, fcos_r101_fpn_1x, fcos_r101_fpn_ms_2x)
