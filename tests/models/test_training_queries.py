"""The training queries of H-DETR and Group-DETR against their definitions, set by set; inference has none of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small_detrs import TRUTH, forms, losses_of, pixels, small
from torch import Tensor

from poise.assign import Hungarian
from poise.detectors.query import layer_loss_names, to_predictions
from poise.models.roles import without_training_parts
from poise.nn.transformer.queries import DecoderOutput, Queries, split_queries
from poise.structures import GroundTruth


def losses_alone(network: Any, queries: Queries, memory: Any, truth: GroundTruth) -> dict[str, Tensor]:
    """The losses of a decoder with these queries alone, every object of ``truth`` being matched once."""
    output: DecoderOutput = network.decoder(queries, memory)
    layers = len(output.logits)
    predictions = to_predictions(output, queries.references, truth.sizes)
    truths = truth.repeat(layers)
    losses: dict[str, Tensor] = network.criterion.layer_losses(
        predictions, Hungarian()(predictions, truths), truths, layer_loss_names(layers, "{}")
    )
    return losses


@forms
def test_one_to_many_queries_match_every_object_several_times(name: str) -> None:
    """H-DETR: seven queries and the twelve behind them attend apart; the twelve are matched with each object thrice."""
    model = small(
        name,
        one_to_many_queries=12,
        one_to_many_repeats=3,
        one_to_many_weight=0.5,
        **({"denoising": 0} if "dino" in name else {}),
    )
    network: Any = model.network
    losses = losses_of(model)
    memory = network.encode(pixels(), TRUTH.sizes)
    first, rest = split_queries(network.queries(memory), 7)
    assert rest.content.shape[1] == 12
    thrice = replace(
        TRUTH,
        **{key: getattr(TRUTH, key).repeat(1, 3, *[1] * (getattr(TRUTH, key).ndim - 2)) for key in ("boxes", "labels")},
        **{key: getattr(TRUTH, key).repeat(1, 3) for key in ("valid", "crowd")},
    )
    for key, loss in losses_alone(network, first, memory, TRUTH).items():
        torch.testing.assert_close(losses[key], loss, rtol=1e-4, atol=1e-5)
    for key, loss in losses_alone(network, rest, memory, thrice).items():
        torch.testing.assert_close(losses[f"{key}_one2many"], 0.5 * loss, rtol=1e-4, atol=1e-5)


@forms
def test_groups_are_matched_each_on_its_own(name: str) -> None:
    """Group-DETR: the loss is the mean of the losses of each group alone."""
    model = small(name, query_groups=3, **({"denoising": 0} if "dino" in name else {}))
    network: Any = model.network
    losses = losses_of(model)
    memory = network.encode(pixels(), TRUTH.sizes)
    queries, groups = network.queries(memory), []
    for _ in range(3):
        group, queries = split_queries(queries, 7)
        groups.append(losses_alone(network, group, memory, TRUTH))
    for key in groups[0]:
        torch.testing.assert_close(losses[key], sum(g[key] for g in groups) / 3, rtol=1e-4, atol=1e-5)
    assert len({float(g["loss_bbox"].detach()) for g in groups}) == 3


@forms
@pytest.mark.parametrize("more", [{"one_to_many_queries": 12}, {"query_groups": 3}], ids=["many", "groups"])
def test_inference_has_neither(name: str, more: dict[str, int]) -> None:
    model = small(name, **more)
    plain = without_training_parts(model)
    none = {"one_to_many_queries": 0} if "one_to_many_queries" in more else {"query_groups": 1}
    assert none.items() <= plain.options.items()
    sizes = {key: p.numel() for key, p in small(name).named_parameters()}
    assert {key: p.numel() for key, p in plain.named_parameters()} == sizes
    assert sum(p.numel() for p in model.parameters()) > sum(sizes.values())
    for a, b in zip(model.detect(pixels()), plain.detect(pixels()), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


@forms
@pytest.mark.parametrize("more", [{"one_to_many_queries": 12}, {"query_groups": 2}], ids=["many", "groups"])
def test_every_parameter_is_trained_also_without_objects(name: str, more: dict[str, int]) -> None:
    model = small(name, **more).train()
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    losses = model.losses(pixels(), empty)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_fewer_tokens_than_queries() -> None:
    """An image of one cell a level: all tokens are selected."""
    model = small("deformable_detr_plus_r18", one_to_many_queries=12, queries=30)
    targets = [{"boxes": torch.tensor([[1.0, 1.0, 6.0, 5.0]]), "labels": torch.tensor([0])}]
    losses = model.losses(torch.randn(1, 3, 8, 8), targets)
    assert all(loss.isfinite() for loss in losses.values()) and "loss_cls_one2many" not in losses


def test_the_two_forms_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="one of them"):
        small("dino_r18", one_to_many_queries=12, query_groups=2)
    with pytest.raises(ValueError, match="at least 1"):
        small("dino_r18", query_groups=0)
