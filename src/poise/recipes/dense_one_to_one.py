"""Dense one-to-one matching (DEIM: Huang et al. 2025, arXiv 2412.04234, section 3.2): more objects in every image.

One-to-one matching has one positive query for each object. Mosaic and mixup put the objects of several images into one,
so that a step has more positives; matching and decoder stay as they are. The article's probabilities are 0.5 each. The
authors' settings leave mixing out in about the last 40 % of the epochs. They start it after 4 epochs, here it starts
with the training. The class loss is the matchability-aware loss (section 3.3).
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.detr import dino_r50_12e, dino_r50_24e
from poise.recipes.settings import Recipe

PLAIN = 0.4  # share of the epochs, at the end, without mosaic and mixup


def dense_one_to_one(recipe: Recipe) -> Recipe:
    """Return a recipe of a DETR with mosaic and mixup before the last 40 % of the epochs, and DEIM's class loss."""
    plain = round(PLAIN * recipe.schedule.epochs)
    augment = replace(recipe.augment, mosaic=0.5, mixup=0.5, plain_epochs=plain)
    options = {**recipe.model.options, "class_loss": "matchability"}
    return replace(recipe, augment=augment, model=replace(recipe.model, options=options))


def dino_r50_dense_12e() -> Recipe:
    """DINO with dense one-to-one matching, ResNet-50, 12 epochs, mixing in the first 7; no AP is published."""
    return dense_one_to_one(dino_r50_12e())


def dino_r50_dense_24e() -> Recipe:
    """DINO with dense one-to-one matching, ResNet-50, 24 epochs, mixing in the first 14; no AP is published."""
    return dense_one_to_one(dino_r50_24e())


RECIPES = (dino_r50_dense_12e, dino_r50_dense_24e)
