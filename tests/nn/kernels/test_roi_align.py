"""RoIAlign by embedding bags against torchvision's, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from poise.nn.kernels.roi_align import roi_align_levels

SHAPES, STRIDES = ((32, 48), (16, 24), (8, 12), (1, 1)), (4, 8, 16, 128)


def scene(count: int, spread: float) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Maps, and the level, image and box of each region; with a large ``spread`` many lie beyond the image."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, *shape, generator=generator).requires_grad_() for shape in SHAPES]
    center = (torch.rand(count, 2, generator=generator) - 0.5) * spread + torch.tensor([96.0, 64.0])
    extent = torch.exp(torch.randn(count, 2, generator=generator) * 1.5 + 3)
    boxes = torch.cat((center - extent / 2, center + extent / 2), 1)
    level_of_region = torch.randint(len(maps), (count,), generator=generator)
    return maps, level_of_region, torch.randint(2, (count,), generator=generator), boxes


def expected(maps: list[Tensor], level_of_region: Tensor, image: Tensor, boxes: Tensor, bins: int) -> Tensor:
    rois = torch.cat((image[:, None], boxes), 1).double()
    alone = [
        roi_align(maps[level], roi[None], bins, 1 / STRIDES[level], aligned=True)
        for level, roi in zip(level_of_region.tolist(), rois, strict=True)
    ]
    return torch.cat(alone)


@pytest.mark.parametrize("spread", [100.0, 600.0])
@pytest.mark.parametrize("bins", [1, 7])
def test_features_and_gradients_equal_torchvision(spread: float, bins: int) -> None:
    maps, level_of_region, image, boxes = scene(200, spread)
    boxes[:3] = torch.tensor([[0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 10.0, 90.0], [0.0, 60.0, 192.0, 61.0]])
    exact = [level.detach().double().requires_grad_() for level in maps]
    ours, theirs = (
        roi_align_levels(maps, STRIDES, level_of_region, image, boxes, bins),
        expected(exact, level_of_region, image, boxes, bins),
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-4)  # of positions in float32
    weights = torch.randn_like(ours)
    gradients = torch.autograd.grad((ours * weights).sum(), maps)
    for found, truth in zip(gradients, torch.autograd.grad((theirs * weights).sum(), exact), strict=True):
        assert float((found - truth).norm() / truth.norm()) < 1e-5


def test_features_equal_torchvision_in_float32() -> None:
    maps, level_of_region, image, boxes = scene(200, 100.0)
    kernel = torch.cat([
        roi_align(maps[level], torch.cat((i[None].float(), box))[None], 7, 1 / STRIDES[level], aligned=True)
        for level, i, box in zip(level_of_region.tolist(), image, boxes, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(
        roi_align_levels(maps, STRIDES, level_of_region, image, boxes, 7), kernel, rtol=1e-5, atol=2e-6
    )


def test_no_regions() -> None:
    maps, level_of_region, image, boxes = scene(0, 100.0)
    assert roi_align_levels(maps, STRIDES, level_of_region, image, boxes, 7).shape == (0, 5, 7, 7)
