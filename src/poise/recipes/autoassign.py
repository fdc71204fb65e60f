"""AutoAssign's published COCO recipe: norm layers do not decay, 1000 steps of warm-up.

The original starts from Caffe's ResNet, whose weights timm does not offer: this recipe starts from torchvision's, with
their strides and colors. ``--model.options caffe True --model.backbone-weights FILE`` is the original, where a file
of Caffe's weights is at hand.
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.coco import coco_recipe, one_x
from poise.recipes.settings import OptimizerSettings, Recipe


def autoassign_r50_fpn_1x() -> Recipe:
    """AutoAssign, ResNet-50, 12 epochs at 1333x800; published AP 40.4 (Caffe backbone)."""
    sgd = OptimizerSettings("sgd", lr=0.01, norm_decay_multiplier=0.0)
    recipe = coco_recipe("autoassign_r50_fpn", one_x(warmup_steps=1000), sgd)
    return replace(recipe, model=replace(recipe.model, options={"caffe": False}))


RECIPES = (autoassign_r50_fpn_1x,)
