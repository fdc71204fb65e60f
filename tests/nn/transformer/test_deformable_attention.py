"""Deformable attention against loops written from its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from poise.nn.kernels import bilinear_sums
from poise.nn.kernels.deformable_sampling import sample_in_bags, sample_levels
from poise.nn.transformer.layers import DeformableAttention
from poise.nn.transformer.tokens import Tokens

SHAPES = ((5, 7), (3, 4), (1, 2))
HEADS, POINTS, CHANNELS = 2, 3, 8


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """(h,w,D) at a position normalized by the map, zero outside."""
    height, width, _ = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    total = torch.zeros(level.shape[2])
    for j, weight_j in ((top, 1 - (row - top)), (top + 1, row - top)):
        for i, weight_i in ((left, 1 - (column - left)), (left + 1, column - left)):
            if 0 <= j < height and 0 <= i < width:
                total = total + level[j, i] * weight_j * weight_i
    return total


def test_samples_equal_loops() -> None:
    torch.manual_seed(0)
    batch, queries, depth = 2, 4, 3
    value = torch.randn(batch, sum(h * w for h, w in SHAPES), HEADS, depth)
    locations = torch.rand(batch, queries, HEADS, len(SHAPES), POINTS, 2) * 1.4 - 0.2
    weights = torch.rand(batch, queries, HEADS, len(SHAPES), POINTS)
    found = sample_levels(value, SHAPES, locations, weights)
    for b in range(batch):
        for q in range(queries):
            for h in range(HEADS):
                start, expected = 0, torch.zeros(depth)
                for i, (height, width) in enumerate(SHAPES):
                    level = value[b, start : start + height * width, h].reshape(height, width, depth)
                    start += height * width
                    for p in range(POINTS):
                        x, y = locations[b, q, h, i, p].tolist()
                        expected += weights[b, q, h, i, p] * bilinear(level, x, y)
                torch.testing.assert_close(found[b, q, h * depth : (h + 1) * depth], expected, atol=1e-5, rtol=1e-5)


def by_grid_sample(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Compute ``sample_levels`` by ``grid_sample``, level by level."""
    batch, _, heads, depth = value.shape
    parts = value.split([h * w for h, w in SHAPES], 1)
    sums = torch.zeros(batch, locations.shape[1], heads, depth, dtype=value.dtype)
    for level, (part, shape) in enumerate(zip(parts, SHAPES, strict=True)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, *shape)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples = grid_sample(maps, grid, align_corners=False).view(batch, heads, depth, *grid.shape[1:3])
        sums = sums + torch.einsum("bhdqp,bqhp->bqhd", samples, weights[:, :, :, level])
    return sums.flatten(2)


@pytest.mark.parametrize("chunk", [1, 50, 2**17])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (0,), (1, 2)])
def test_gradients_equal_grid_sample(chunk: int, wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of values, locations and weights, in one and in many chunks, with locations outside the maps."""
    monkeypatch.setattr(bilinear_sums, "CHUNK", chunk)
    torch.manual_seed(0)
    kind: dict[str, Any] = {"dtype": torch.float64}
    value = torch.randn(2, sum(h * w for h, w in SHAPES), HEADS, 5, **kind)
    locations = torch.rand(2, 7, HEADS, len(SHAPES), POINTS, 2, **kind) * 1.6 - 0.3
    locations[0, 0, 0, 0, 0] = 1e9
    inputs = [value, locations, torch.rand(2, 7, HEADS, len(SHAPES), POINTS, **kind)]
    leaves = [inputs[i].requires_grad_() for i in wanted]
    found, expected = sample_in_bags(inputs[0], SHAPES, *inputs[1:]), by_grid_sample(*inputs)
    torch.testing.assert_close(found, expected)
    slopes = torch.randn_like(found)
    for mine, theirs in zip(*(torch.autograd.grad(t, leaves, slopes) for t in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_locations_that_are_not_finite_have_no_gradient() -> None:
    locations = torch.rand(1, 2, HEADS, len(SHAPES), POINTS, 2)
    locations[0, 0, 0, 0, 0, 0], locations[0, 1, 1, 2, 1, 1] = math.nan, math.inf
    value = torch.randn(1, sum(h * w for h, w in SHAPES), HEADS, 5, requires_grad=True)
    weights = torch.rand(1, 2, HEADS, len(SHAPES), POINTS, requires_grad=True)
    sample_levels(value, SHAPES, locations.requires_grad_(), weights).square().sum().backward()
    gradients = [leaf.grad for leaf in (value, locations, weights)]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert locations.grad is not None and (locations.grad[0, 0, 0, 0, 0] == 0).all()


def memory(padding: bool) -> Tokens:
    count = sum(h * w for h, w in SHAPES)
    ratios, centers = torch.ones(2, len(SHAPES), 2), torch.rand(2, count, 2)
    mask = torch.zeros(2, count, dtype=torch.bool)
    if padding:
        ratios[1], mask[1, 30:] = 0.5, True
    return Tokens(torch.randn(2, count, CHANNELS), torch.zeros(2, count, CHANNELS), centers, mask, ratios, SHAPES)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_attention_equals_its_definition(coordinates: int) -> None:
    torch.manual_seed(1)
    attention, tokens = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS), memory(padding=True)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    query, references = torch.randn(2, 5, CHANNELS), torch.rand(2, 5, coordinates)
    value = attention.values(tokens.values)
    value[tokens.padding_mask] = 0
    offsets = attention.sampling_offsets(query).reshape(2, 5, HEADS, len(SHAPES), POINTS, 2)
    weights = attention.weights(query).reshape(2, 5, HEADS, -1).softmax(-1).reshape(offsets.shape[:-1])
    locations = torch.zeros_like(offsets)
    for b in range(2):
        for i, (height, width) in enumerate(SHAPES):
            on_level = references[b] * tokens.valid_ratios[b, i].repeat(coordinates // 2)
            unit = torch.tensor([1 / width, 1 / height])
            if coordinates == 4:
                unit = on_level[:, None, None, 2:] / POINTS * 0.5
            locations[b, :, :, i] = on_level[:, None, None, :2] + offsets[b, :, :, i] * unit
    expected = attention.output(sample_levels(value.unflatten(-1, (HEADS, -1)), SHAPES, locations, weights))
    torch.testing.assert_close(attention(query, references, tokens), expected)


def test_heads_start_in_directions_of_their_own() -> None:
    attention = DeformableAttention(256, 8, 4, 4)
    start = attention.sampling_offsets.bias.reshape(8, 4, 4, 2)
    for head in range(8):
        angle = 2 * math.pi * head / 8
        direction = torch.tensor([math.cos(angle), math.sin(angle)])
        direction = direction / direction.abs().max()
        for point in range(4):
            torch.testing.assert_close(start[head, :, point], (direction * (point + 1)).expand(4, -1))
    assert not attention.sampling_offsets.weight.any() and not attention.weights.weight.any()


def test_float32_within_autocast() -> None:
    attention, tokens = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS), memory(padding=False)
    query, references = torch.randn(2, 5, CHANNELS), torch.rand(2, 5, 2)
    exact = attention(query, references, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(query, references, tokens)
    torch.testing.assert_close(mixed.float(), exact, atol=0.05, rtol=0.05)


def test_channels_must_be_divisible_by_heads() -> None:
    with pytest.raises(ValueError, match="heads"):
        DeformableAttention(10, 3, 1)
