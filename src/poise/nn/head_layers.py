"""Layers of dense heads: grids of priors, towers of convolutions, output convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from poise.nn.conv import Conv3x3
from poise.nn.deformable import DeformableConv
from poise.structures import Priors


def flatten_levels(levels: Sequence[Tensor], width: int) -> Tensor:
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

    ``scales`` are in strides; at each cell come ratios (height / width) outermost, then sides. The location is the
    cell's corner plus ``offset`` strides. One scale of 1 and one ratio of 1 make points: boxes of one stride.
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = (1.0,)
    offset: float = 0.0

    @property
    def count(self) -> int:
        """Anchors a cell."""
        return len(self.scales) * len(self.ratios)

    def __call__(self, maps: Sequence[Tensor]) -> Priors:
        """Priors of (B,C,H_l,W_l) maps."""
        half = [
            (scale / math.sqrt(ratio) / 2, scale * math.sqrt(ratio) / 2)
            for ratio in self.ratios
            for scale in self.scales
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


def point_grid(strides: Sequence[int], offset: float) -> AnchorGrid:
    """One point a cell."""
    return AnchorGrid(tuple(strides), offset=offset)


def square_anchors(strides: Sequence[int], scale: float = 8.0) -> AnchorGrid:
    """One square anchor a cell, centerd on the cell's corner (ATSS, GFL)."""
    return AnchorGrid(tuple(strides), (scale,))


def retina_anchors(strides: Sequence[int], base: float = 4.0, octaves: int = 3) -> AnchorGrid:
    """RetinaNet's nine anchors a cell: three octave steps, three ratios."""
    return AnchorGrid(tuple(strides), tuple(base * 2 ** (i / octaves) for i in range(octaves)), (0.5, 1.0, 2.0))


class SharedLayers(nn.Sequential):
    """Layers one after the other, of one map or of several that share the weights."""

    @overload
    def forward(self, maps: Tensor) -> Tensor: ...
    @overload
    def forward(self, maps: list[Tensor]) -> list[Tensor]: ...
    def forward(self, maps: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """(B,C,H,W) to a map of the same height and width, or a list of such to a list."""
        for layer in self:
            at_once = isinstance(maps, Tensor) or isinstance(layer, (SharedLayers, Conv3x3))
            maps = layer(maps) if at_once else [layer(level) for level in maps]
        return maps


class ConvNorm(SharedLayers):
    """3x3 convolution (deformable if asked), group norm (if ``groups``), ReLU."""

    def __init__(self, in_channels: int, channels: int, groups: int, bias: bool, deformable: bool = False) -> None:
        super().__init__()
        conv = Conv3x3(in_channels, channels, bias)
        self.add_module("conv", DeformableConv.of(conv) if deformable else conv)
        if groups:  # narrow towers keep four channels a group, so that a 1x1 map of one image can be normalized
            self.add_module("norm", nn.GroupNorm(min(groups, max(1, channels // 4)), channels))
        self.add_module("act", nn.ReLU(inplace=True))


def tower(
    channels: int, depth: int = 4, groups: int = 32, bias: bool = False, deformable: bool = False
) -> SharedLayers:
    """``depth`` equal layers; ``groups=0`` leaves the norm out (then a bias is always there).

    With ``deformable`` the last convolution is deformable.
    """
    layers = range(depth)
    bias = bias or not groups
    return SharedLayers(*[ConvNorm(channels, channels, groups, bias, deformable and i == depth - 1) for i in layers])


def output_conv(channels: int, outputs: int, bias: float = 0.0) -> Conv3x3:
    """A 3x3 output convolution, initialized N(0, 0.01) with a constant bias."""
    conv = Conv3x3(channels, outputs)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    return conv


def prior_bias(probability: float = 0.01) -> float:
    """The bias at which a sigmoid output starts at ``probability``."""
    return -math.log((1 - probability) / probability)


def init_towers(*towers: nn.Module) -> None:
    """N(0, 0.01) for every convolution of the towers, zero biases."""
    for module in (module for part in towers for module in part.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Scale(nn.Module):
    """One learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Scales(nn.ModuleList):
    """One learned factor for each level."""

    def __init__(self, levels: int) -> None:
        super().__init__([Scale() for _ in range(levels)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Multiply each level's map by its factor."""
        return [level * scale.scale for level, scale in zip(maps, self, strict=True)]  # type: ignore[operator]
