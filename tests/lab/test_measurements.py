"""Measurements of the Co-DETR article: attention maps, instability of matching, conflict of heads, query distances."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from poise.detection_model import DetectionModel
from poise.lab.attention import (
    NoCrossAttention,
    deformable_attention_maps,
    dense_attention_maps,
    positive_query_attention,
    scatter_bilinear,
)
from poise.lab.auxiliary_queries import NoQueries, QueryCenters, QueryDistances, image_queries, query_distances
from poise.lab.conflict import HeadConflict, SingleHead, activation_maps, grad_cam, kl_divergence, to_distribution
from poise.lab.instability import (
    BY_TOKEN,
    Instability,
    add_changes,
    count_changed,
    count_rematched,
    match_by_token,
    match_stages,
)
from poise.models import create_model
from poise.nn.transformer.conditional import ConditionalCrossAttention
from poise.nn.transformer.tokens import Tokens
from poise.structures import Batch, GroundTruth, Progress

SMALL: dict[str, Any] = {"channels": 32, "attention_heads": 4, "hidden": 64, "queries": 20, "encoder_layers": 1}
SMALL |= {"decoder_layers": 2, "max_auxiliary_queries": 40, "backbone": "mobilenetv3_small_100"}
LATE = Progress.final()


def model_of(name: str = "co_deformable_detr_r18", seed: int = 0, **options: Any) -> DetectionModel:
    torch.manual_seed(seed)
    small = SMALL if "detr" in name else {"channels": 16, "backbone": SMALL["backbone"]}
    if name == "conditional_detr_r18":
        small = {"channels": 32, "attention_heads": 4, "queries": 20, "backbone": SMALL["backbone"]}
    return create_model(name, num_classes=3, **{**small, **options}).eval()


def batch_of(objects: int = 2) -> Batch:
    boxes = torch.tensor([[10.0, 10.0, 50.0, 60.0], [30.0, 40.0, 90.0, 80.0]])[:objects]
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([0, 2])[:objects]}], [(90, 96)])
    return Batch(torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)), truth, torch.arange(1))


def test_scattering_is_the_transpose_of_bilinear_sampling() -> None:
    generator = torch.Generator().manual_seed(0)
    locations = torch.rand(200, 2, generator=generator) * 1.4 - 0.2
    weights = torch.rand(200, generator=generator)
    grid = torch.zeros(1, 1, 5, 7, requires_grad=True)
    sampled = functional.grid_sample(grid, locations[None, None] * 2 - 1, align_corners=False)
    (sampled[0, 0, 0] * weights).sum().backward()
    torch.testing.assert_close(scatter_bilinear(locations, weights, (5, 7)), grid.grad[0, 0], rtol=0, atol=1e-5)  # type: ignore[index]


def test_a_weight_at_a_cells_center_stays_there() -> None:
    found = scatter_bilinear(torch.tensor([[2.5 / 4, 1.5 / 3]]), torch.tensor([0.7]), (3, 4))
    assert float(found[1, 2]) == pytest.approx(0.7) and float(found.sum()) == pytest.approx(0.7)


def test_maps_of_levels() -> None:
    locations = torch.full((2, 3, 2, 4, 2), 0.5)
    weights = torch.full((2, 3, 2, 4), 1 / 8)
    assert [
        float(level.sum()) for level in deformable_attention_maps(locations, weights, ((4, 4), (2, 2)))
    ] == pytest.approx([3, 3])
    dense = torch.zeros(2, 3, 6)
    dense[:, :, 4] = 1
    first, second = dense_attention_maps(dense, ((2, 2), (1, 2)))
    assert first.sum() == 0 and second.tolist() == [[6.0, 0.0]]


@pytest.mark.parametrize("name", ["co_deformable_detr_r18", "conditional_detr_r18"])
def test_attention_of_each_positive_query_sums_to_its_heads(name: str) -> None:
    (found,) = positive_query_attention(model_of(name).network, batch_of())
    assert found.num_queries == 2
    total = sum(float(level.sum()) for level in found.maps)
    if name == "conditional_detr_r18":
        assert total == pytest.approx(2 * 4, rel=1e-4)  # softmax over all tokens, in four heads
    assert 0 < total <= 2 * 4 + 1e-3
    assert found.score_map((96, 96), (90, 96)).shape == (90, 96)


def test_attention_weights_reproduce_the_attention_output() -> None:
    torch.manual_seed(0)
    attention = ConditionalCrossAttention(16, 2, 0.0, first=True).eval()
    padding = torch.arange(6)[None] >= torch.tensor([[6], [4]])
    memory = Tokens(
        torch.randn(2, 6, 16), torch.randn(2, 6, 16), torch.rand(2, 6, 2), padding, torch.ones(2, 1, 2), ((2, 3),)
    )
    inputs = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16), memory
    with torch.no_grad():
        weights = attention.attention_weights(*inputs)
        values = attention.value(memory.values).unflatten(-1, (2, 8)).transpose(1, 2)
        read = inputs[0] + attention.output((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(*inputs), read)
    assert weights[1, :, :, 4:].eq(0).all()


def test_models_without_a_decoder_are_refused() -> None:
    model = model_of("atss_r18_fpn")
    with pytest.raises(NoCrossAttention, match="poise lab discriminability"):
        positive_query_attention(model.network, batch_of())
    with pytest.raises(NoQueries, match="DETR family"):
        image_queries(model.network, batch_of(), LATE)
    with pytest.raises(SingleHead, match="two heads over the same features"):
        activation_maps(model.network, batch_of(), LATE, name=model.name)
    with pytest.raises(ValueError, match="has 2 layers"):
        positive_query_attention(model_of().network, batch_of(), layer=5)


def test_instability_by_hand() -> None:
    before, after = torch.tensor([0, -1, 1, -1]), torch.tensor([0, 1, -1, -1])
    assert count_changed(before[None], after[None]).tolist() == [2]
    assert count_rematched(before, after, 3) == 1  # object 1 alone
    tokens = torch.tensor([[7, 3, 5, 0]])
    assert match_by_token(before[None], tokens, 8).tolist() == [[-1, -1, -1, -1, -1, 1, -1, 0]]
    found = Instability()
    found.add("a", before, after, 2)
    found.add("b", before, before, 2)
    numbers = found.to_dict()
    assert numbers == {"images": 2, "objects": 4, "priors": 4, "instability": 1.0, "objects_rematched": 0.25}


def test_the_same_weights_are_stable_and_others_are_not() -> None:
    first, other = (match_stages(model_of(seed=seed).network, batch_of(), LATE) for seed in (0, 1))
    again = match_stages(model_of(seed=0).network, batch_of(), LATE)
    assert {"queries", BY_TOKEN, "faster_rcnn/rpn", "atss/dense"} == set(first)
    same: dict[str, Instability] = {}
    add_changes("a", first, again, 2, into=same)
    assert all(one.to_dict()["instability"] == 0 for one in same.values()) and len(same) == 4
    different: dict[str, Instability] = {}
    add_changes("a", first, other, 2, into=different)
    assert different["atss/dense"].to_dict()["instability"] == 0  # its assigner reads anchors alone
    assert different["queries"].to_dict()["instability"] > 0
    assert sorted(first["queries"][0][first["queries"][0] >= 0].tolist()) == [0, 1]


def test_class_activation_by_hand() -> None:
    features = [torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])]  # two channels of one row
    gradients = [torch.tensor([[[1.0, 3.0]], [[-1.0, 0.0]]])]  # their means: 2 and -1/2
    found = grad_cam(features, gradients, (1, 2), (1, 2))
    assert found.tolist() == [[pytest.approx(2 * 1 - 0.5 * 3), pytest.approx(2 * 2 + 0.5)]]


def test_divergences_and_their_means_by_hand() -> None:
    p, q = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(to_distribution(p), to_distribution(q)) == pytest.approx(wanted, abs=1e-6)
    found = HeadConflict()
    found.add({"a": p, "b": q, "c": q})
    found.add({"a": q, "b": q, "c": torch.zeros(1, 2)})  # c saw nothing: it counts for no pair
    assert found.divergence("a", "b") == pytest.approx(wanted / 2, abs=1e-6)
    assert found.divergence("a", "c") == pytest.approx(wanted, abs=1e-6) and found.divergence("a", "a") == 0
    numbers = found.to_dict()
    both = [
        found.divergence("a", "b") + found.divergence("b", "a"),
        found.divergence("a", "c") + found.divergence("c", "a"),
    ]
    assert numbers["distance"]["a"] == pytest.approx(sum(both) / 4)
    assert json.loads(json.dumps(numbers))["heads"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("co_deformable_detr_r18", {"decoder", "faster_rcnn", "atss"}),
        ("faster_rcnn_r18_fpn", {"rpn", "rcnn"}),
    ],
)
def test_every_head_has_its_activation(name: str, heads: set[str]) -> None:
    found = activation_maps(model_of(name).network, batch_of(), LATE)
    assert set(found) == heads
    assert all(one.shape == (90, 96) and one.isfinite().all() for one in found.values())
    assert all(one.sum() == 0 for one in activation_maps(model_of(name).network, batch_of(0), LATE).values())


def test_distances_of_queries_by_hand() -> None:
    auxiliary = QueryCenters(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1]))
    own = QueryCenters(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    found = query_distances(auxiliary, own)
    side = 1 / math.sqrt(2)
    assert found["all_pairs"] == pytest.approx((0 + side + 1 + side) / 4)
    assert found["nearest"] == pytest.approx((0 + side) / 2) and found["same_object"] == pytest.approx(side / 2)
    nobody = QueryCenters(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert set(query_distances(nobody, own).values()) == {None}


def test_query_centers() -> None:
    (queries,) = image_queries(model_of().network, batch_of(), LATE)
    assert set(queries.auxiliary) == {"faster_rcnn", "atss"}
    assert len(queries.positive.centers) == 2 and len(queries.negative.centers) == 18
    inside = ((queries.auxiliary["atss"].centers > 0) & (queries.auxiliary["atss"].centers < 1)).all()
    assert inside and set(queries.auxiliary["atss"].objects.tolist()) == {0, 1}
    found = QueryDistances()
    found.add("a", queries)
    numbers = json.loads(json.dumps(found.to_dict()))
    assert numbers["queries_per_image"]["positive"] == 2 and numbers["distance"]["atss"]["to_positive"]["all_pairs"] > 0
    plain = QueryDistances()
    plain.add("a", image_queries(model_of(auxiliary_heads="").network, batch_of(), LATE)[0])
    assert plain.to_dict()["distance"] == {}
    json.dumps(queries.to_dict())
