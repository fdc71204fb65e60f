"""The published recipes of Co-DETR (Zong et al. 2023): COCO, LVIS, and fine-tuning from Objects365.

Batches of 16, AdamW, gradients clipped at 0.1. "lsj" is large-scale jitter with copy-paste: the originals paste and cut
by masks, poise by boxes; at inference they fill the square with gray, where poise pads with the mean and masks that.
The authors published LVIS configurations for testing only; repeat-factor sampling and the federated loss follow the
article. They published no configuration for plain Deformable-, Conditional- and DAB-DETR either: these recipes are
those of the detectors without heads, with 12 or 36 epochs as in the article's table 2. Nor did they publish the
pre-training on Objects365: its 26 epochs are the article's, image sizes and rate those of the fine-tuning on COCO.
Fine-tuning from Objects365 needs its checkpoint (``--weights FILE``); classes are matched by their names.
"""

from __future__ import annotations

from dataclasses import replace

from poise.recipes.augment import AugmentSettings
from poise.recipes.detr import SLOW_SAMPLING, Options, detr_augment, detr_recipe
from poise.recipes.settings import Recipe

SLOW = {"sampling_offsets": 0.1}  # of the rate, in Co-Deformable-DETR
LARGE_SIDES = tuple(range(480, 1537, 32))
LARGE = (1280, 2048)  # test size of the largest models


def _deformable(
    backbone: str, epochs: int, drop_path: float | None = None, decay: float = 0.05, **options: bool | int | float | str
) -> Recipe:
    """Co-Deformable-DETR: the rate falls after 11 of 12 epochs, 30 of 36."""
    own: Options = {**({} if drop_path is None else {"drop_path": drop_path}), **options}
    drop = 11 if epochs == 12 else 30
    return detr_recipe(f"co_deformable_detr_{backbone}", 2e-4, epochs, drop, multipliers=SLOW, decay=decay, options=own)


def _dino(
    backbone: str, epochs: int, side: int = 0, lr: float = 2e-4, drop: int = 0, **options: float | bool
) -> Recipe:
    """Co-DINO on five levels; with ``side`` large-scale jitter on such a square."""
    drop = drop or {12: 11, 24: 20, 36: 30}[epochs]
    own: Options = {"checkpointed_layers": 4 if backbone == "r50" else 6, **options}
    augment = lsj(side) if side else None
    recipe = detr_recipe(f"co_dino_5scale_{backbone}", lr, epochs, drop, options=own, augment=augment)
    return replace(recipe, model=replace(recipe.model, image_size=(side,))) if side else recipe


def lsj(side: int) -> AugmentSettings:
    """Large-scale jitter on a square, and copy-paste."""
    jitter = {"scale_jitter": (0.1, 2.0), "jitter_canvas": side, "redraw_empty": True}
    return AugmentSettings(flip=0.5, copy_paste=1.0, **jitter)  # type: ignore[arg-type]


def _lvis(recipe: Recipe) -> Recipe:
    """Add repeat-factor sampling and the federated loss with 50 classes."""
    data = replace(recipe.data, repeat_threshold=1e-3)
    return replace(recipe, data=data, train=replace(recipe.train, federated_classes=50))


def _from_objects365(recipe: Recipe) -> Recipe:
    """Start without ImageNet weights: all weights come from the checkpoint."""
    return replace(recipe, model=replace(recipe.model, backbone_weights="none"))


def _plain(model: str, epochs: int, lr: float, slow: dict[str, float], batch: int) -> Recipe:
    """A detector with the settings that it has without heads; the rate falls after 11 of 12 epochs, 30 of 36."""
    single_scale = batch == 16
    augment = detr_augment(crop_longest=1333) if single_scale else None
    drop = 11 if epochs == 12 else 30
    return detr_recipe(model, lr, epochs, drop, multipliers=slow, batch=batch, empty=not single_scale, augment=augment)


def co_plain_deformable_detr_r50_12e() -> Recipe:
    """Plain Deformable-DETR with auxiliary heads, ResNet-50, 12 epochs; published AP 42.9 (37.1 without heads)."""
    return _plain("co_plain_deformable_detr_r50", 12, 2e-4, SLOW_SAMPLING, 32)


def co_plain_deformable_detr_r50_36e() -> Recipe:
    """Plain Deformable-DETR with auxiliary heads, ResNet-50, 36 epochs; published: 3.2 AP more than without heads."""
    return _plain("co_plain_deformable_detr_r50", 36, 2e-4, SLOW_SAMPLING, 32)


def co_conditional_detr_r50_12e() -> Recipe:
    """Conditional-DETR with auxiliary heads, ResNet-50, 12 epochs."""
    return _plain("co_conditional_detr_r50", 12, 1e-4, {}, 16)


def co_conditional_detr_r50_36e() -> Recipe:
    """Conditional-DETR with auxiliary heads, ResNet-50, 36 epochs; published: 2.4 AP more than without heads."""
    return _plain("co_conditional_detr_r50", 36, 1e-4, {}, 16)


def co_dab_detr_r50_12e() -> Recipe:
    """DAB-DETR with auxiliary heads, ResNet-50, 12 epochs."""
    return _plain("co_dab_detr_r50", 12, 1e-4, {}, 16)


def co_dab_detr_r50_36e() -> Recipe:
    """DAB-DETR with auxiliary heads, ResNet-50, 36 epochs; published: 2.3 AP more than without heads."""
    return _plain("co_dab_detr_r50", 36, 1e-4, {}, 16)


def co_deformable_detr_r50_12e() -> Recipe:
    """Co-Deformable-DETR, ResNet-50, 12 epochs; published AP 49.5."""
    return _deformable("r50", 12, decay=1e-4)


def co_deformable_detr_swin_t_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-T, 12 epochs; published AP 51.7."""
    return _deformable("swin_t", 12)


def co_deformable_detr_swin_t_36e() -> Recipe:
    """Co-Deformable-DETR, Swin-T, 36 epochs; published AP 54.1."""
    return _deformable("swin_t", 36, 0.3)


def co_deformable_detr_swin_s_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-S, 12 epochs; published AP 53.4."""
    return _deformable("swin_s", 12)


def co_deformable_detr_swin_s_36e() -> Recipe:
    """Co-Deformable-DETR, Swin-S, 36 epochs; published AP 55.3."""
    return _deformable("swin_s", 36, 0.4)


def co_deformable_detr_swin_b_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-B, 12 epochs; published AP 55.5."""
    return _deformable("swin_b", 12)


def co_deformable_detr_swin_b_36e() -> Recipe:
    """Co-Deformable-DETR, Swin-B, 36 epochs; published AP 57.5."""
    return _deformable("swin_b", 36, 0.4)


def co_deformable_detr_swin_l_12e() -> Recipe:
    """Co-Deformable-DETR, Swin-L, 12 epochs; published AP 56.9."""
    return _deformable("swin_l", 12)


def co_deformable_detr_swin_l_36e() -> Recipe:
    """Co-Deformable-DETR, Swin-L, 900 queries, 36 epochs; published AP 58.5."""
    return _deformable("swin_l", 36, 0.6, queries=900, max_detections=300)


def co_dino_5scale_r50_12e() -> Recipe:
    """Co-DINO, ResNet-50, 12 epochs; published AP 52.1."""
    return _dino("r50", 12)


def co_dino_5scale_r50_lsj_12e() -> Recipe:
    """Co-DINO, ResNet-50, large-scale jitter, 12 epochs; published AP 52.1."""
    return _dino("r50", 12, 1024)


def co_dino_5scale_r50_lsj_36e() -> Recipe:
    """Co-DINO, ResNet-50, large-scale jitter, 36 epochs; published AP 54.8."""
    return _dino("r50", 36, 1024)


def co_dino_5scale_9enc_r50_lsj_12e() -> Recipe:
    """Co-DINO, nine encoder layers, ResNet-50, large-scale jitter, 12 epochs; published AP 52.6."""
    return _dino("r50", 12, 1024, encoder_layers=9)


def co_dino_5scale_9enc_r50_lsj_36e() -> Recipe:
    """Co-DINO, nine encoder layers, ResNet-50, large-scale jitter, 36 epochs; published AP 55.4."""
    return _dino("r50", 36, 1024, encoder_layers=9)


def co_dino_5scale_swin_l_12e() -> Recipe:
    """Co-DINO, Swin-L, 12 epochs; published AP 58.9."""
    return _dino("swin_l", 12)


def co_dino_5scale_swin_l_24e() -> Recipe:
    """Co-DINO, Swin-L, 24 epochs; published AP 59.8."""
    return _dino("swin_l", 24, drop_path=0.5)


def co_dino_5scale_swin_l_36e() -> Recipe:
    """Co-DINO, Swin-L, 36 epochs; published AP 60.0."""
    return _dino("swin_l", 36, drop_path=0.6)


def co_dino_5scale_swin_l_lsj_12e() -> Recipe:
    """Co-DINO, Swin-L, large-scale jitter, 12 epochs; published AP 59.3."""
    return _dino("swin_l", 12, 1280)


def co_dino_5scale_swin_l_lsj_24e() -> Recipe:
    """Co-DINO, Swin-L, large-scale jitter, 24 epochs; published AP 60.4."""
    return _dino("swin_l", 24, 1280, drop_path=0.5)


def co_dino_5scale_swin_l_lsj_36e() -> Recipe:
    """Co-DINO, Swin-L, large-scale jitter, 36 epochs; published AP 60.7."""
    return _dino("swin_l", 36, 1280, drop_path=0.5)


def co_dino_5scale_swin_l_o365_coco_16e() -> Recipe:
    """Co-DINO, Swin-L, from Objects365 to COCO, 16 epochs; published AP 64.1."""
    recipe = _from_objects365(_dino("swin_l", 16, lr=1e-4, drop=8, drop_path=0.3))
    augment = detr_augment(LARGE_SIDES, longest=2048)
    return replace(recipe, augment=augment, model=replace(recipe.model, image_size=LARGE))


def co_dino_5scale_swin_l_lvis_36e() -> Recipe:
    """Co-DINO, Swin-L, LVIS, large-scale jitter, 36 epochs; published AP 56.9."""
    return _lvis(_dino("swin_l", 36, 1280, drop_path=0.5))


def co_dino_5scale_swin_l_o365_lvis_16e() -> Recipe:
    """Co-DINO, Swin-L, from Objects365 to LVIS, large-scale jitter, 16 epochs; published AP 64.5."""
    return _lvis(_from_objects365(_dino("swin_l", 16, 1536, lr=1e-4, drop=8, drop_path=0.3)))


def co_dino_5scale_vit_l_12e() -> Recipe:
    """Co-DINO, ViT-L (EVA-02), COCO from Objects365, 12 epochs; published AP 65.4 on one size."""
    recipe = _from_objects365(
        detr_recipe("co_dino_5scale_vit_l", 5e-5, 12, 7, multipliers=layer_decay(24, 0.8), decay=0.01)
    )
    optimizer = replace(
        recipe.optimizer, backbone_lr_multiplier=1.0, norm_decay_multiplier=0.0, bias_decay_multiplier=0.0
    )
    return replace(
        recipe,
        model=replace(recipe.model, image_size=LARGE),
        augment=detr_augment(LARGE_SIDES, longest=2400),
        optimizer=optimizer,
        schedule=replace(recipe.schedule, warmup="linear", warmup_steps=500, warmup_ratio=0.01),
        train=replace(recipe.train, ema_decay=1 - 1e-4),
    )


def co_dino_5scale_vit_l_o365_26e() -> Recipe:
    """Co-DINO, ViT-L (EVA-02), pre-training on Objects365 (365 classes) from masked-image weights, 26 epochs."""
    recipe = co_dino_5scale_vit_l_12e()
    schedule = replace(recipe.schedule, epochs=26, milestones=(24,))
    return replace(recipe, model=replace(recipe.model, backbone_weights="imagenet"), schedule=schedule)


def co_dino_5scale_vit_l_lvis_16e() -> Recipe:
    """Co-DINO, ViT-L (EVA-02), LVIS from Objects365, large-scale jitter, 16 epochs; published AP 68.0."""
    recipe = _lvis(_from_objects365(detr_recipe("co_dino_5scale_vit_l_lvis", 5e-5, 16, 9, decay=0.05)))
    schedule = replace(recipe.schedule, milestones=(9, 15), warmup="linear", warmup_steps=500, warmup_ratio=0.01)
    return replace(recipe, model=replace(recipe.model, image_size=(1536,)), augment=lsj(1536), schedule=schedule)


def layer_decay(blocks: int, decay: float) -> dict[str, float]:
    """Layer-wise rates of a ViT: each block has ``decay`` times the rate of the next, the embedding of the first."""
    rates = {f"backbone.body.blocks.{i}.": decay ** (blocks - i) for i in range(blocks)}
    return {**rates, **{f"backbone.body.{name}": decay ** (blocks + 1) for name in ("pos_embed", "patch_embed")}}


RECIPES = tuple(recipe for name, recipe in list(globals().items()) if name.startswith("co_") and callable(recipe))
