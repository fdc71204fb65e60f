"""Libra R-CNN's published COCO recipes: those of the detectors that it balances.

The numbers are MMDetection 2's; the article's own code reports 38.5, 40.3, 42.7 and, for RetinaNet, 37.7.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe
from poise.recipes.faster_rcnn import SGD
from poise.recipes.settings import Recipe


def libra_faster_rcnn_r50_fpn_1x() -> Recipe:
    """Libra Faster R-CNN, ResNet-50, 12 epochs at 1333x800; published AP 38.3."""
    return coco_recipe("libra_faster_rcnn_r50_fpn", optimizer=SGD)


def libra_faster_rcnn_r101_fpn_1x() -> Recipe:
    """Libra Faster R-CNN, ResNet-101, 12 epochs at 1333x800; published AP 40.1."""
    return coco_recipe("libra_faster_rcnn_r101_fpn", optimizer=SGD)


def libra_faster_rcnn_x101_64x4d_fpn_1x() -> Recipe:
    """Libra Faster R-CNN, ResNeXt-101 64x4d, 12 epochs at 1333x800; published AP 42.7."""
    return coco_recipe("libra_faster_rcnn_x101_64x4d_fpn", optimizer=SGD)


def libra_retinanet_r50_fpn_1x() -> Recipe:
    """Libra RetinaNet, ResNet-50, 12 epochs at 1333x800; published AP 37.6."""
    return coco_recipe("libra_retinanet_r50_fpn")


RECIPES = (
    libra_faster_rcnn_r50_fpn_1x,
    libra_faster_rcnn_r101_fpn_1x,
    libra_faster_rcnn_x101_64x4d_fpn_1x,
    libra_retinanet_r50_fpn_1x,
)
