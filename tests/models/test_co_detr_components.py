"""Co-DETR's components: heads without queries, queries without trained heads, and both, by their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poise.export.graph import kind_of
from poise.models import create_model
from poise.models.catalog import NAMES
from poise.recipes import get_recipe, with_settings
from poise.recipes.articles import TABLES

TINY: dict[str, Any] = {"channels": 16, "hidden": 16, "encoder_layers": 1, "decoder_layers": 2, "attention_heads": 2}
BACKBONE = {"backbone": "mobilenetv3_small_100", "deterministic": True}
BOXES = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
SMALL_QUERIES = {"queries": 6, "region_hidden": 16, "regions": 32}


def step(name: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    model = create_model(name, 3, **TINY, **BACKBONE, **options).train()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = model.losses(pixels, [{"boxes": BOXES, "labels": torch.tensor([0, 2])}] * 2)
    torch.stack(list(losses.values())).sum().backward()
    return model, losses


def trained(model: Any, part: str) -> bool:
    gradients = [parameter.grad for name, parameter in model.named_parameters() if part in name]
    return any(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.parametrize("row", TABLES["co_detr_components"].ablation.variants, ids=lambda row: row.name)
def test_components(row: Any) -> None:
    options = {name.removeprefix("model.options."): value for name, value in row.changes.items()}
    model, losses = step("co_deformable_detr_r18", **SMALL_QUERIES, **options)
    heads, queries = row.name in ("auxiliary head", "both"), row.name in ("positive queries", "both")
    assert trained(model, "auxiliary_heads.0.branch") == heads
    assert trained(model, "auxiliary_heads.0.query_generator") == queries
    assert any("_aux" in name for name in losses) == queries
    of_heads = [float(loss.detach()) for name, loss in losses.items() if name.endswith("0") and "_aux" not in name]
    assert any(of_heads) == heads
    assert trained(model, "encoder")


def test_customized_queries_train_the_encoder_through_their_features() -> None:
    """What "queries without heads" leaves of the encoder's additional supervision."""
    model, _ = step("co_deformable_detr_r18", **SMALL_QUERIES, auxiliary_heads="atss", auxiliary_head_weight=0.0)
    model.zero_grad()
    fresh = model.losses(torch.randn(2, 3, 64, 64), [{"boxes": BOXES, "labels": torch.tensor([0, 2])}] * 2)
    sum(loss for name, loss in fresh.items() if "_aux" in name).backward()  # type: ignore[union-attr]
    assert trained(model, "network.encoder") and not trained(model, "auxiliary_heads.0.branch")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"auxiliary_head_weight": 0.0, "max_auxiliary_queries": 0}, "excludes max_auxiliary_queries=0"),
        ({"max_auxiliary_queries": -1}, "cannot be negative"),
        ({"auxiliary_query_weight": -1.0}, "cannot be negative"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        step("co_deformable_detr_r18", **SMALL_QUERIES, auxiliary_heads="atss", **options)


@pytest.mark.parametrize("name", ["co_plain_deformable_detr_r18", "co_conditional_detr_r18", "co_dab_detr_r18"])
def test_auxiliary_heads_on_other_detrs_leave_inference_alone(name: str) -> None:
    assert NAMES[name].fixed["auxiliary_heads"] == "faster_rcnn,atss"
    model, losses = step(name, **SMALL_QUERIES, auxiliary_heads="atss")
    assert {"loss_cls0", "loss_cls_aux0"} <= set(losses)
    torch.manual_seed(0)
    plain = create_model(name, 3, **TINY, **BACKBONE, **SMALL_QUERIES, auxiliary_heads="")
    plain.load_state_dict({key: model.state_dict()[key] for key in plain.state_dict()})
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval().detect(pixels)[0]["boxes"], plain.eval().detect(pixels)[0]["boxes"])


def test_an_encoder_with_an_atss_head_has_no_decoder() -> None:
    tiny = {name: value for name, value in TINY.items() if name != "decoder_layers"}
    model = create_model("encoder_atss_r18", 3, **tiny, **BACKBONE).train()
    losses = model.losses(torch.randn(2, 3, 64, 64), [{"boxes": BOXES, "labels": torch.tensor([0, 2])}] * 2)
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_centerness"}
    torch.stack(list(losses.values())).sum().backward()
    assert trained(model, "network.encoder") and not any("decoder" in name for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match="cannot be exported: its encoder reads the sizes"):
        kind_of(model)
    with pytest.raises(ValueError, match="has neither"):
        create_model("encoder_atss_r18", 3, **BACKBONE, decoder_layers=2)


def test_recipes() -> None:
    for name, drop in (("12e", 11), ("36e", 30)):
        for model in ("co_plain_deformable_detr_r50", "co_conditional_detr_r50", "co_dab_detr_r50"):
            recipe = get_recipe(f"{model}_{name}")
            assert (recipe.model.name, recipe.schedule.milestones) == (model, (drop,))
    pretraining = get_recipe("co_dino_5scale_vit_l_o365_26e")
    assert (pretraining.schedule.epochs, pretraining.model.name) == (26, "co_dino_5scale_vit_l")
    assert with_settings(pretraining, {"data.path": "o365"}).data.path == "o365"
    rows = TABLES["co_detr_k"].ablation.variants
    heads = [str(row.changes["model.options.auxiliary_heads"]) for row in rows]
    counts = [len(one.split(",")) if one else 0 for one in heads]
    assert counts == [0, *[1] * 15, 2, 3, 6, 6]
