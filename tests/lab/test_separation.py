"""Discriminability and IoF-IoB curves against their definitions, written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poise.lab.separation import (
    Separation,
    box_mask,
    contrast,
    discriminability,
    iof_iob,
)


def bilinear(level: list[list[float]], y: float, x: float) -> float:
    """The value of a map at a position in cells, edges repeated."""
    high, wide = len(level), len(level[0])
    y, x = min(max(y, 0.0), high - 1.0), min(max(x, 0.0), wide - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, high - 1), min(left + 1, wide - 1)
    upper = level[top][left] * (1 - (x - left)) + level[top][right] * (x - left)
    lower = level[bottom][left] * (1 - (x - left)) + level[bottom][right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def literal_discriminability(maps: list[Tensor], canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    total = torch.zeros(size)
    for level in maps:
        channels, high, wide = level.shape
        norms = [
            [math.sqrt(sum(float(level[c, i, j]) ** 2 for c in range(channels))) for j in range(wide)]
            for i in range(high)
        ]
        resized = torch.zeros(size)
        for y in range(size[0]):
            for x in range(size[1]):
                resized[y, x] = bilinear(norms, (y + 0.5) * high / canvas[0] - 0.5, (x + 0.5) * wide / canvas[1] - 0.5)
        total += resized / resized.max()
    return total / len(maps)


def test_discriminability_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, *shape, generator=generator) for shape in ((4, 6), (2, 3), (1, 2))]
    found = discriminability(maps, (16, 24), (13, 20))
    torch.testing.assert_close(found, literal_discriminability(maps, (16, 24), (13, 20)), rtol=0, atol=1e-5)
    assert 0 <= float(found.min()) and float(found.max()) <= 1


def test_a_flat_map_is_one_everywhere_and_an_empty_one_nothing() -> None:
    torch.testing.assert_close(discriminability([torch.ones(2, 2, 2)], (8, 8), (8, 8)), torch.ones(8, 8))
    assert discriminability([torch.zeros(2, 2, 2)], (8, 8), (8, 8)).eq(0).all()


def test_pixels_belong_to_a_box_that_holds_their_center() -> None:
    boxes = torch.tensor([[1.0, 0.0, 3.0, 2.0], [2.6, 1.4, 9.0, 3.0], [0.0, 0.0, 0.4, 0.4]])
    found = box_mask(boxes, (4, 5))
    wanted = torch.tensor(
        [[0, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]],
        dtype=torch.bool,
    )
    assert found.equal(wanted)
    assert not box_mask(torch.zeros(0, 4), (4, 5)).any()


def test_curve_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1]])
    foreground = torch.tensor([[True, True, False, False]])
    inside, outside = iof_iob(scores, foreground, thresholds=torch.tensor([0.0, 0.5, 0.6, 0.95]))
    assert inside.tolist() == [1.0, 0.5, 0.5, 0.0]  # D > 0.5 leaves the pixel of 0.5 out
    assert outside.tolist() == [0.0, 0.5, 1.0, 1.0]  # so does D < 0.5
    assert contrast(scores, foreground, ~foreground) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_curve_and_contrast_are_their_definitions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 20, (9, 11), generator=generator) / 19
    foreground = torch.rand(9, 11, generator=generator) < 0.3
    ignored = (torch.rand(9, 11, generator=generator) < 0.1) & ~foreground
    background = ~foreground & ~ignored
    steps = torch.linspace(0, 1, 21)
    inside, outside = iof_iob(scores, foreground, background, steps)
    for i, step in enumerate(steps):
        above = sum(bool(s > step) for s in scores[foreground]) / int(foreground.sum())
        below = sum(bool(s < step) for s in scores[background]) / int(background.sum())
        assert float(inside[i]) == pytest.approx(above) and float(outside[i]) == pytest.approx(below)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[foreground] for b in scores[background]]
    assert contrast(scores, foreground, background) == pytest.approx(sum(pairs) / len(pairs))


def test_images_are_pooled_or_averaged_and_those_without_objects_counted() -> None:
    found = Separation(torch.tensor([0.5]))
    small, large = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 0.6]])
    found.add("a", small, small > 0.5, small < 0.5)
    found.add("b", large, torch.tensor([[True, True, True, False]]), torch.tensor([[False, False, False, True]]))
    found.add("empty", small, torch.zeros(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool))
    found.add("full", small, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool))
    assert found.curves()[0].tolist() == [1 / 4] and found.curves(pooled=False)[0].tolist() == [1 / 2]
    numbers = found.to_dict()
    assert (numbers["images"], numbers["without_foreground"], numbers["without_background"]) == (2, 1, 1)
    assert numbers["contrast"] == pytest.approx(0.5) and numbers["curves"]["pooled"]["iob"] == [0.5]


def test_without_images_there_are_no_curves() -> None:
    assert Separation().to_dict()["curves"] is None
