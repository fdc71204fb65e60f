"""Positions, padding and proposals of tokens against the originals' pixel masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from poise.nn.transformer.layers import inverse_sigmoid
from poise.nn.transformer.queries import token_proposals
from poise.nn.transformer.tokens import XYWH, YXWH, Tokenizer, Tokens, box_sine

CANVAS = (50, 77)
SIZES = torch.tensor([[50.0, 60.0], [31.0, 77.0], [3.0, 5.0]])
SHAPES = ((7, 10), (4, 5), (1, 2))


def pixel_mask() -> Tensor:
    """(B,H,W) bool, true in the padding."""
    mask = torch.ones(len(SIZES), *CANVAS, dtype=torch.bool)
    for image, (height, width) in zip(mask, SIZES.int().tolist(), strict=True):
        image[:height, :width] = False
    return mask


def tokens(temperature: float = 20.0, offset: float = 0.0) -> Tokens:
    maps = [torch.randn(len(SIZES), 8, *shape) for shape in SHAPES]
    return Tokenizer(8, len(SHAPES), temperature, offset)(maps, SIZES, CANVAS)


def test_padding_masks_and_valid_ratios_are_those_of_the_interpolated_pixel_mask() -> None:
    found, start = tokens(), 0
    for i, shape in enumerate(SHAPES):
        mask = interpolate(pixel_mask()[:, None].float(), size=shape)[:, 0].bool()
        size = shape[0] * shape[1]
        assert torch.equal(found.padding_mask[:, start : start + size], mask.flatten(1))
        torch.testing.assert_close(found.valid_ratios[:, i, 0], (~mask[:, 0]).float().mean(1))
        torch.testing.assert_close(found.valid_ratios[:, i, 1], (~mask[:, :, 0]).float().mean(1))
        start += size


@pytest.mark.parametrize("temperature, offset", [(20.0, 0.0), (10000.0, -0.5)])
def test_sine_encoding_inside_the_image(temperature: float, offset: float) -> None:
    tokenizer = Tokenizer(8, 0, temperature, offset)
    found = tokenizer([torch.zeros(len(SIZES), 8, *SHAPES[0])], SIZES, CANVAS)
    inside = ~interpolate(pixel_mask()[:, None].float(), size=SHAPES[0])[:, 0].bool()
    down, right = inside.cumsum(1).float(), inside.cumsum(2).float()
    for b in range(len(SIZES)):
        for i, j in inside[b].nonzero().tolist():
            expected = []
            for value, last in ((down[b, i, j], down[b, -1, j]), (right[b, i, j], right[b, i, -1])):
                angle = float((value + offset) / (last + 1e-6)) * 2 * math.pi
                for k in range(4):
                    turn = angle / temperature ** (2 * (k // 2) / 4)
                    expected.append(math.sin(turn) if k % 2 == 0 else math.cos(turn))
            token = found.positions[b, i * SHAPES[0][1] + j]
            torch.testing.assert_close(token, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_centers_and_maps() -> None:
    found = tokens()
    first = found.centers[1, 0]
    torch.testing.assert_close(first, 0.5 / torch.tensor([10.0, 7.0]) / found.valid_ratios[1, 0])
    for level, shape in zip(found.maps(), SHAPES, strict=True):
        assert level.shape == (len(SIZES), 8, *shape)
    assert torch.equal(found.maps()[1][2, :, 3, 4], found.values[2, 70 + 3 * 5 + 4])


def test_order_of_coordinates() -> None:
    box = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    parts = box_sine(box, 6, XYWH).reshape(4, 6)
    assert torch.equal(box_sine(box, 6, YXWH).reshape(4, 6), parts[[1, 0, 2, 3]])
    assert torch.equal(box_sine(box[:, :2], 6, YXWH).reshape(2, 6), parts[[1, 0]])


def test_inverse_sigmoid_is_clamped_at_both_ends() -> None:
    values = torch.tensor([-1.0, 0.0, 0.25, 1.0, 2.0])
    found = inverse_sigmoid(values, 1e-3)
    assert found[:2].tolist() == pytest.approx([math.log(1e-3)] * 2)
    assert found[2:].tolist() == pytest.approx([math.log(1 / 3), -math.log(1e-3), -math.log(1e-3)])


def test_proposals() -> None:
    found = tokens()
    start, usable = token_proposals(found)
    cells = [(i, y, x) for i, (height, width) in enumerate(SHAPES) for y in range(height) for x in range(width)]
    for b in range(len(SIZES)):
        for n, (level, y, x) in enumerate(cells):
            width, height = (found.valid_ratios[b, level] * torch.tensor(SHAPES[level][::-1])).tolist()
            box = [(x + 0.5) / width, (y + 0.5) / height, 0.05 * 2**level, 0.05 * 2**level]
            may = all(0.01 < value < 0.99 for value in box) and not found.padding_mask[b, n]
            assert bool(usable[b, n]) == may
            expected = [math.log(value / (1 - value)) for value in box] if may else [math.inf] * 4
            assert start[b, n].tolist() == pytest.approx(expected, abs=1e-4)
