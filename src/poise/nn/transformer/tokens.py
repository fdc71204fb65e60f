"""Feature maps as one sequence of tokens, with sine encodings of their positions, and the neck that makes the maps.

Encodings of feature maps differ between papers in temperature and offset. Encodings of boxes differ in the order of
coordinates: DINO, DAB-DETR and Conditional-DETR encode (y, x, w, h), the two-stage form of Deformable-DETR and Co-DETR
(x, y, w, h).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.nn.kernels.bilinear_sums import Shape
from poise.nn.layers import StridedConv

EPS = 1e-6
YXWH, XYWH = (1, 0, 2, 3), (0, 1, 2, 3)  # orders in which box coordinates are encoded


class ChannelMapper(nn.Module):
    """The neck of the DETR family: projects backbone maps to the same number of channels and adds coarser levels.

    1x1 convolutions of the backbone's maps, then ``extra`` 3x3 convolutions of stride 2, first of the last backbone
    map.

    Args:
        groups: of the group norm after each convolution; 0: no norm, and convolutions with bias.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], channels: int, extra: int = 0, *, groups: int = 32
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strides: tuple[int, ...] = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(extra)))
        sources = [in_channels[-1], *[channels] * extra]
        self.convs = nn.ModuleList([_Projection(count, channels, 1, groups) for count in in_channels])
        self.extra = nn.ModuleList([_Projection(sources[i], channels, 3, groups) for i in range(extra)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        projected = [conv(level) for conv, level in zip(self.convs, maps, strict=True)]
        last = maps[-1]
        for conv in self.extra:
            last = conv(last)
            projected.append(last)
        return projected


class _Projection(nn.Sequential):
    """Convolution, of stride 2 if larger than 1x1, and group norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int, groups: int) -> None:
        super().__init__()
        layer = StridedConv if kernel > 1 else nn.Conv2d
        conv = layer(in_channels, channels, kernel, 2 if kernel > 1 else 1, kernel // 2, bias=not groups)
        nn.init.xavier_uniform_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        self.add_module("conv", conv)
        if groups:  # narrow models keep four channels a group, so that a 1x1 map of one image can be normalized
            self.add_module("norm", nn.GroupNorm(min(groups, max(1, channels // 4)), channels))


@dataclass(frozen=True)
class Tokens:
    """N tokens of L levels, ordered by level, then by row. After the encoder they are the decoder's memory."""

    values: Tensor  # (B,N,C)
    positions: Tensor  # (B,N,C) position encodings
    centers: Tensor  # (B,N,2) x, y of each cell's center, normalized by the image's size; above 1 in the padding
    padding_mask: Tensor  # (B,N) bool, True for cells beyond the image
    valid_ratios: Tensor  # (B,L,2) fractions of each level's width and height that the image covers, in (0,1]
    shapes: tuple[Shape, ...]  # height and width of each level

    def maps(self) -> list[Tensor]:
        """Return the values as maps (B,C,H_l,W_l)."""
        levels = self.values.split([height * width for height, width in self.shapes], 1)
        return [level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, self.shapes, strict=True)]


class Tokenizer(nn.Module):
    """Flattens pyramid maps to ``Tokens``.

    Args:
        channels: C of the maps.
        levels: number of levels, each with a learned level embedding that is added to the position encodings; 0: a
            single level without embedding.
        temperature, offset: of the sine encodings, see ``map_sine``.
    """

    def __init__(self, channels: int, levels: int, temperature: float = 10000.0, offset: float = 0.0) -> None:
        super().__init__()
        self.level_embedding = nn.Parameter(torch.randn(levels, channels)) if levels else None
        self.temperature, self.offset = temperature, offset

    def forward(self, maps: Sequence[Tensor], sizes: Tensor, canvas: Shape) -> Tokens:
        """Flatten maps (B,C,H_l,W_l) of images of ``sizes`` (B,2), padded to ``canvas``, both (height, width)
        pixels."""
        positions, centers, masks, ratios = [], [], [], []
        for i, level in enumerate(maps):
            height, width = level.shape[2:]
            rows, columns = valid_cells(sizes[:, 0], canvas[0], height), valid_cells(sizes[:, 1], canvas[1], width)
            position = map_sine(rows, columns, level.shape[1], self.temperature, offset=self.offset)
            positions.append(position if self.level_embedding is None else position + self.level_embedding[i])
            masks.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
            ratio = torch.stack((columns.float().mean(1), rows.float().mean(1)), 1)
            ratios.append(ratio)
            x = (torch.arange(width, device=ratio.device) + 0.5) / width
            y = (torch.arange(height, device=ratio.device) + 0.5) / height
            grid = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)
            centers.append(grid.flatten(0, 1) / ratio[:, None])
        values = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        shapes = tuple((level.shape[2], level.shape[3]) for level in maps)
        return Tokens(
            values,
            torch.cat(positions, 1),
            torch.cat(centers, 1),
            torch.cat(masks, 1),
            torch.stack(ratios, 1),
            shapes,
        )


def valid_cells(extent: Tensor, canvas: int, cells: int) -> Tensor:
    """Return which of a map's ``cells`` along one axis lie inside the image, (B,cells) bool; the first always does.

    Equals nearest-neighbor interpolation of the pixel mask.

    Args:
        extent: (B,) pixels of each image along the axis.
        canvas: pixels of the padded batch along the axis.
    """
    pixel = (torch.arange(cells, dtype=torch.float32, device=extent.device) * (canvas / cells)).floor()
    return pixel < extent[:, None]


def map_sine(rows: Tensor, columns: Tensor, channels: int, temperature: float, *, offset: float) -> Tensor:
    """Encode the cells of a map as (B,H*W,channels): half of the channels encode the row, half the column.

    Angles run from 0 to 2 pi over the cells inside the image; the encodings of padding cells are arbitrary.

    Args:
        rows, columns: (B,H) and (B,W) bool, the rows and columns inside the image.
        offset: added to the 1-based number of the row and the column before it is normalized.
    """
    encoded = []
    for inside in (rows, columns):
        count = inside.float().cumsum(1)
        angles = (count + offset) / (count[:, -1:] + EPS) * (2 * math.pi)
        encoded.append(sine(angles, channels // 2, temperature))
    y, x = encoded
    height, width = y.shape[1], x.shape[1]
    y, x = y[:, :, None].expand(-1, -1, width, -1), x[:, None].expand(-1, height, -1, -1)
    return torch.cat((y, x), -1).flatten(1, 2)


def box_sine(boxes: Tensor, width: int, order: tuple[int, ...]) -> Tensor:
    """Encode normalized points or boxes (...,2|4) as (...,2|4 * width), ``width`` numbers for each coordinate."""
    ordered = torch.stack([boxes[..., i] for i in order[: boxes.shape[-1]]], -1).float()
    return sine(ordered * (2 * math.pi), width).flatten(-2)


def sine(angles: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Encode angles (...) as (...,width): sines and cosines of falling frequencies (Vaswani et al. 2017),
    interleaved."""
    steps = torch.arange(width // 2, dtype=torch.float32, device=angles.device)
    scaled = angles[..., None] / temperature ** (2 * steps / width)
    return torch.stack((scaled.sin(), scaled.cos()), -1).flatten(-2)
