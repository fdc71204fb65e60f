"""Deformable attention against loops written from its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poise.nn.kernels.deformable_sampling import sample_levels
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
