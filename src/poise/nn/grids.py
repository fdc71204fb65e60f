"""Where dense heads predict: grids of points and of anchors over the levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.structures import Priors


def flatten(levels: Sequence[Tensor], width: int) -> Tensor:
    """Join (B, A*width, H_l, W_l) maps to (B,N,width) float32: level-major, row-major, anchors innermost."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in levels], 1).float()


def _corners(height: int, width: int, stride: int, offset: float, device: torch.device) -> Tensor:
    """x, y of each cell's location, (H*W, 2) float32 pixels."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + offset) * stride
    x = (torch.arange(width, device=device, dtype=torch.float32) + offset) * stride
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), 2).reshape(-1, 2)


@dataclass(frozen=True)
class AnchorGrid:
    """Boxes around each cell's location.

    ``sides`` are in strides; at each cell come ratios (height / width) outermost, then sides. The location is the
    cell's corner plus ``offset`` strides. One side of 1 and one ratio of 1 make points: boxes of one stride.
    """

    strides: tuple[int, ...]
    sides: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = (1.0,)
    offset: float = 0.0

    @property
    def count(self) -> int:
        """Anchors a cell."""
        return len(self.sides) * len(self.ratios)

    def __call__(self, maps: Sequence[Tensor]) -> Priors:
        """Priors of (B,C,H_l,W_l) maps."""
        half = [
            (side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2) for ratio in self.ratios for side in self.sides
        ]
        boxes, strides, sizes = [], [], []
        for level, stride in zip(maps, self.strides, strict=True):
            height, width = level.shape[-2:]
            centers = _corners(height, width, stride, self.offset, level.device)
            x, y = centers.unbind(1)
            cell = [torch.stack((x - w * stride, y - h * stride, x + w * stride, y + h * stride), 1) for w, h in half]
            boxes.append(torch.stack(cell, 1).reshape(-1, 4))
            sizes.append(height * width * self.count)
            strides.append(torch.full((sizes[-1],), float(stride), device=level.device))
        return Priors(torch.cat(boxes)[None], torch.cat(strides), tuple(sizes))


def points(strides: Sequence[int], offset: float) -> AnchorGrid:
    """One point a cell."""
    return AnchorGrid(tuple(strides), offset=offset)


def squares(strides: Sequence[int], side: float = 8.0) -> AnchorGrid:
    """One square anchor a cell, centerd on the cell's corner (ATSS, GFL)."""
    return AnchorGrid(tuple(strides), (side,))


def retina_anchors(strides: Sequence[int], base: float = 4.0, octaves: int = 3) -> AnchorGrid:
    """RetinaNet's nine anchors a cell: three octave steps, three ratios."""
    return AnchorGrid(tuple(strides), tuple(base * 2 ** (i / octaves) for i in range(octaves)), (0.5, 1.0, 2.0))
