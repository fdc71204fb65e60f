"""The maps of a pyramid as one sequence of tokens, with where each token lies and which are padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poise.nn.transformer.positions import map_sine

Shape = tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """N tokens of L levels, level-major, then row-major."""

    values: Tensor  # (B,N,C)
    positions: Tensor  # (B,N,C) encodings
    padding: Tensor  # (B,N) bool: beyond the image
    filled: Tensor  # (B,L,2) share of each level's width and height that the image fills, in (0,1]
    shapes: tuple[Shape, ...]  # height and width of each level

    def with_values(self, values: Tensor) -> Tokens:
        return replace(self, values=values)

    def at(self, positions: Tensor) -> Tokens:
        return replace(self, positions=positions)

    def centers(self) -> Tensor:
        """Center x, y of each token in shares of its image, (B,N,2); beyond 1 in the padding."""
        parts = []
        for level, (height, width) in enumerate(self.shapes):
            x = (torch.arange(width, device=self.filled.device) + 0.5) / width
            y = (torch.arange(height, device=self.filled.device) + 0.5) / height
            grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)
            parts.append(grid.flatten(0, 1) / self.filled[:, None, level])
        return torch.cat(parts, 1)

    def on_levels(self, references: Tensor) -> Tensor:
        """References (B,Q,2|4) in shares of the image to (B,Q,L,2|4) in shares of each level's map."""
        filled = self.filled.repeat(1, 1, references.shape[-1] // 2)
        return references[:, :, None] * filled[:, None]

    def maps(self) -> list[Tensor]:
        """The values as (B,C,H_l,W_l) maps."""
        levels = self.values.split([height * width for height, width in self.shapes], 1)
        pairs = zip(levels, self.shapes, strict=True)
        return [level.transpose(1, 2).unflatten(2, shape) for level, shape in pairs]


class Tokenizer(nn.Module):
    """Pyramid maps to ``Tokens``.

    Args:
        levels: each gets a learned vector, added to its positions; 0: one level without.
        temperature, offset: of the sine encodings.
    """

    def __init__(self, channels: int, levels: int, temperature: float = 10000.0, offset: float = 0.0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.randn(levels, channels)) if levels else None
        self.temperature, self.offset = temperature, offset

    def forward(self, maps: Sequence[Tensor], sizes: Tensor, canvas: Shape) -> Tokens:
        """Tokens of (B,C,H_l,W_l) maps, of images of ``sizes`` (B,2) padded to a ``canvas`` (height, width)."""
        positions, padding, filled = [], [], []
        for i, level in enumerate(maps):
            rows, columns = (inside(sizes[:, axis], canvas[axis], level.shape[2 + axis]) for axis in (0, 1))
            position = map_sine(rows, columns, level.shape[1], self.temperature, self.offset)
            positions.append(position if self.levels is None else position + self.levels[i])
            padding.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
            filled.append(torch.stack((columns.float().mean(1), rows.float().mean(1)), 1))
        values = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        shapes = tuple((int(level.shape[2]), int(level.shape[3])) for level in maps)
        return Tokens(values, torch.cat(positions, 1), torch.cat(padding, 1), torch.stack(filled, 1), shapes)


def inside(extent: Tensor, canvas: int, cells: int) -> Tensor:
    """Which of a map's ``cells`` along one axis lie inside images of ``extent`` (B,) of ``canvas`` pixels, (B,cells).

    As nearest-neighbor shrinking of the pixels' mask has it; the first cell always does.
    """
    pixel = (torch.arange(cells, dtype=torch.float32, device=extent.device) * (canvas / cells)).floor()
    return pixel < extent[:, None]
