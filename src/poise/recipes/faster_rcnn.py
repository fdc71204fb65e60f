"""Faster R-CNN's (and Fast R-CNN's) published COCO recipes.

How many regions are proposed and sampled are options of the model: ``--model.options proposals 2000 regions 256``.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, two_x
from poise.recipes.settings import OptimizerSettings, Recipe

SGD = OptimizerSettings("sgd", lr=0.02)


def faster_rcnn_r50_fpn_1x() -> Recipe:
    """Faster R-CNN, ResNet-50, 12 epochs at 1333x800; published AP 37.4."""
    return coco_recipe("faster_rcnn_r50_fpn", optimizer=SGD)


def faster_rcnn_r50_fpn_2x() -> Recipe:
    """Faster R-CNN, ResNet-50, 24 epochs at 1333x800; published AP 38.4."""
    return coco_recipe("faster_rcnn_r50_fpn", two_x(), SGD)


def faster_rcnn_r101_fpn_1x() -> Recipe:
    """Faster R-CNN, ResNet-101, 12 epochs at 1333x800; published AP 39.4."""
    return coco_recipe("faster_rcnn_r101_fpn", optimizer=SGD)


def faster_rcnn_r101_fpn_2x() -> Recipe:
    """Faster R-CNN, ResNet-101, 24 epochs at 1333x800; published AP 39.8."""
    return coco_recipe("faster_rcnn_r101_fpn", two_x(), SGD)


def faster_rcnn_x101_32x4d_fpn_1x() -> Recipe:
    """Faster R-CNN, ResNeXt-101 32x4d, 12 epochs at 1333x800; published AP 41.2."""
    return coco_recipe("faster_rcnn_x101_32x4d_fpn", optimizer=SGD)


def faster_rcnn_x101_64x4d_fpn_1x() -> Recipe:
    """Faster R-CNN, ResNeXt-101 64x4d, 12 epochs at 1333x800; published AP 42.1."""
    return coco_recipe("faster_rcnn_x101_64x4d_fpn", optimizer=SGD)


def fast_rcnn_r50_fpn_1x() -> Recipe:
    """Fast R-CNN, ResNet-50, 12 epochs at 1333x800, with --data.proposals FILE and --data.val_proposals FILE."""
    return coco_recipe("fast_rcnn_r50_fpn", optimizer=SGD)


def fast_rcnn_r101_fpn_1x() -> Recipe:
    """Fast R-CNN, ResNet-101, 12 epochs at 1333x800, with --data.proposals FILE and --data.val_proposals FILE."""
    return coco_recipe("fast_rcnn_r101_fpn", optimizer=SGD)


RECIPES = (
    fast_rcnn_r50_fpn_1x,
    fast_rcnn_r101_fpn_1x,
    faster_rcnn_r50_fpn_1x,
    faster_rcnn_r50_fpn_2x,
    faster_rcnn_r101_fpn_1x,
    faster_rcnn_r101_fpn_2x,
    faster_rcnn_x101_32x4d_fpn_1x,
    faster_rcnn_x101_64x4d_fpn_1x,
)
