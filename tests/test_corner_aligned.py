"""The corner-aligned resize against a slow reading of OpenCV's perspective warp."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.preprocess import NANODET, corner_aligned_resize


def slow(image: Tensor, height: int, width: int) -> Tensor:
    """Positions in 1/32 of a pixel, black outside, halves rounded up."""
    result = torch.zeros(3, height, width, dtype=torch.uint8)
    rows, columns = image.shape[1:]
    for v in range(height):
        for u in range(width):
            y, x = round(v * (rows / height) * 32), round(u * (columns / width) * 32)
            for channel in range(3):
                total = 0
                for dy, wy in ((0, 32 - y % 32), (1, y % 32)):
                    for dx, wx in ((0, 32 - x % 32), (1, x % 32)):
                        row, column = y // 32 + dy, x // 32 + dx
                        inside = row < rows and column < columns
                        total += wy * wx * int(image[channel, row, column]) if inside else 0
                result[channel, v, u] = (total + 512) // 1024
    return result


@pytest.mark.parametrize("size", [(13, 17), (40, 21), (32, 32)])
def test_bytes_as_the_slow_reference(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(size[0])
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    assert torch.equal(corner_aligned_resize(image, (24, 28)), slow(image, 24, 28))


def test_floats_agree_with_bytes_to_rounding() -> None:
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    floats = corner_aligned_resize(image.float() / 255, (32, 48))
    assert floats.dtype == torch.float32
    assert (floats * 255 - corner_aligned_resize(image, (32, 48)).float()).abs().max() <= 0.5001


def test_a_corner_stays_a_corner() -> None:
    """Target pixel (x, y) shows source pixel (x W / W', y H / H'): no half-pixel shift."""
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8).expand(3, -1, -1)
    assert torch.equal(corner_aligned_resize(image, (4, 4)), image[:, ::2, ::2])


def test_images_become_square_in_bgr() -> None:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    image[0] = 255
    pixels, sizes = NANODET.batch([NANODET.normalize(NANODET.resize(image))])
    assert pixels.shape == (1, 3, 320, 320) and sizes.tolist() == [[320.0, 320.0]]
    torch.testing.assert_close(
        pixels[0, :, 0, 0], torch.tensor([-103.53 / 57.375, -116.28 / 57.12, (255 - 123.675) / 58.395])
    )
