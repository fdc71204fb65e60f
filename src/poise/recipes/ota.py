"""OTA's published COCO recipe: 90,000 steps of 16 images, the rate divided by ten after 60,000 and 80,000."""

from __future__ import annotations

from poise.recipes.coco import coco_recipe
from poise.recipes.settings import Recipe


def ota_r50_fpn_1x() -> Recipe:
    """OTA, ResNet-50, 12 epochs at 1333x800; published AP 40.7."""
    return coco_recipe("ota_r50_fpn")


RECIPES = (ota_r50_fpn_1x,)
