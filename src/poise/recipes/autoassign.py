"""AutoAssign's published COCO recipe: norm layers do not decay, 1000 steps of warm-up.

The original starts from Caffe's ResNet, whose weights timm does not offer: this recipe starts from torchvision's. With
a file of Caffe weights at hand, ``--model.options caffe True --model.backbone-weights FILE`` is the original.
"""

from __future__ import annotations

from poise.recipes.coco import coco_recipe, one_x
from poise.recipes.settings import OptimizerSettings, Recipe


def autoassign_r50_fpn_1x() -> Recipe:
    """AutoAssign, ResNet-50, 12 epochs at 1333x800; published AP 40.4 (Caffe backbone)."""
    sgd = OptimizerSettings("sgd", lr=0.01, norm_decay_multiplier=0.0)
    return coco_recipe("autoassign_r50_fpn", one_x(warmup_steps=1000), sgd)


RECIPES = (autoassign_r50_fpn_1x,)
