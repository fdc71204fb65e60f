"""The stacks of convolutions that dense heads share between levels."""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor, nn

from poise.nn.conv import Conv3x3
from poise.nn.deformable import DeformableConv


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
    """One learned factor (a level has one each)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.scale
