"""The comparisons of docs/benchmarks.md: small trainings on generated scenes and BCCD, for hours on a CPU.

    poise demo-data pretraining --train 1600 --val 100 --size 256 --seed 100 --style plain
    poise demo-data scenes --train 400 --val 160 --size 256 --seed 7 --style plain
    python examples/small_comparisons.py recipes                       # writes the recipes as YAML
    poise train --config pretraining.yaml --data pretraining --out runs/pretraining
    python examples/small_comparisons.py backbone runs/pretraining     # writes resnet18.pt, shared by all variants
    poise ablate dense_methods --config dense.yaml --data scenes --epochs 6 --seeds 0 1 2
    poise ablate dw_negative_weight --config dense.yaml --model.name dw_r18_fpn --data scenes --epochs 6
    poise ablate libra_parts --config two_stage.yaml --data scenes
    poise ablate nanodet_guidance --config nanodet.yaml --data scenes

NanoDet's variants start from the backbone of its published COCO weights:

    python examples/small_comparisons.py shufflenet nanodet-plus-m_320.pth    # writes shufflenet.pt, shufflenet_rgb.pt

Co-DETR's heads, on the scenes and, from the same published backbone, on photographs:

    poise ablate co_detr_heads --config co_detr.yaml --data scenes --epochs 16
    poise ablate co_detr_heads --config co_detr_photographs.yaml --data coco128 --epochs 40
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import poise
from poise.recipes import Recipe, save_recipe, with_settings
from poise.recipes.demo import demo

SHARED: dict[str, Any] = {
    "optimizer.lr": 1.5e-3,
    "optimizer.backbone_lr_multiplier": 0.3,
    "train.precision": "bf16",
    "evaluate.pictures": 0,
    "data.on_bad_data": "skip",
}


def pretraining() -> Recipe:
    """ATSS on ResNet-18 from random weights; of the result only the backbone is used."""
    options = {"channels": 64, "depth": 1}
    return with_settings(demo(6), {**SHARED, "optimizer.backbone_lr_multiplier": 1.0, "model.options": options})


def dense() -> Recipe:
    """One-stage methods at 128 px, pyramids of 64 channels and towers of one layer."""
    size = {"model.image_size": [128], "model.options": {"channels": 64, "depth": 1}}
    return with_settings(demo(8), {**SHARED, "model.backbone_weights": "resnet18.pt", **size})


def two_stage() -> Recipe:
    """Faster R-CNN's variants at 160 px; 300 proposals, of which 128 are trained on."""
    options = {"channels": 64, "hidden": 256, "proposals": 300, "regions": 128, "anchors": 128}
    name = {"model.name": "libra_faster_rcnn_r18_fpn", "model.options": options}
    return with_settings(demo(10), {**SHARED, "model.backbone_weights": "resnet18.pt", **name})


def nanodet() -> Recipe:
    """NanoDet-Plus-m at 128 px; the guide is detached after two of six epochs."""
    name = {"model.name": "nanodet_plus_m_320", "model.image_size": [128], "model.options": {"detach_epoch": 2}}
    return with_settings(demo(6), {**SHARED, "optimizer.lr": 1e-3, "model.backbone_weights": "shufflenet.pt", **name})


def co_detr() -> Recipe:
    """Co-Deformable-DETR at 128 px, with two layers of an encoder, three of a decoder and 60 queries."""
    options = {
        "channels": 64,
        "hidden": 256,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "queries": 60,
        "max_auxiliary_queries": 60,
    }
    small_heads = {"auxiliary_heads": "faster_rcnn,atss", "regions": 64, "region_hidden": 256}
    changes = {
        "model.name": "co_deformable_detr_r18",
        "model.image_size": [128],
        "model.backbone_weights": "resnet18.pt",
        "model.options": {**options, **small_heads},
        "optimizer.lr": 6e-4,
        "optimizer.weight_decay": 1e-4,
        "optimizer.lr_multipliers": {"sampling_offsets": 0.1},
        "train.clip_norm": 0.1,
        "train.ema_decay": 0.99,
        "evaluate.every": 4,
    }
    return with_settings(demo(16), {**SHARED, **changes})


def co_detr_photographs() -> Recipe:
    """The same on a backbone that knows photographs."""
    recipe = co_detr()
    options = {**recipe.model.options, "backbone": "shufflenetv2_1.0x"}
    weights = {"model.options": options, "model.backbone_weights": "shufflenet_rgb.pt"}
    return with_settings(recipe, {**weights, "evaluate.every": 8})


def main() -> None:
    what, *source = sys.argv[1:]
    if what == "recipes":
        for function in (pretraining, dense, two_stage, nanodet, co_detr, co_detr_photographs):
            save_recipe(function(), f"{function.__name__}.yaml")
    elif what == "backbone":
        backbone: Any = poise.Detector(source[0]).model.network.backbone
        torch.save(backbone.body.state_dict(), "resnet18.pt")
    elif what == "shufflenet":
        model = poise.create_model("nanodet_plus_m_320")
        poise.load_published(model, source[0])
        state = model.network.backbone.state_dict()  # type: ignore[union-attr]
        torch.save(state, "shufflenet.pt")
        first = state["conv1.0.weight"][:, [2, 1, 0]]  # NanoDet's images are blue first, the DETR family's red first
        torch.save({**state, "conv1.0.weight": first}, "shufflenet_rgb.pt")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
