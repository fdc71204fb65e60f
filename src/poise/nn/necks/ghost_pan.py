"""GhostPAN, the neck of NanoDet-Plus: path aggregation by ghost bottlenecks (Han et al. 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.nn.activations import leaky


class DepthwiseSeparable(nn.Sequential):
    """Depthwise convolution, norm, activation, 1x1 convolution, norm, activation."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel, stride, kernel // 2, groups=in_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.depthwise_act = leaky()
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels)
        self.pointwise_act = leaky()
        for conv in (self.depthwise, self.pointwise):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


class GhostModule(nn.Module):
    """Computes half of the channels by a 1x1 convolution and the other half from those by a depthwise convolution."""

    def __init__(self, in_channels: int, channels: int, act: bool) -> None:
        super().__init__()
        half = channels // 2
        self.primary = nn.Sequential(nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half))
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half))
        self.act = leaky() if act else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        primary = self.act(self.primary(features))
        return torch.cat((primary, self.act(self.cheap(primary))), 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules with a depthwise shortcut and no activation after the sum."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.expand = GhostModule(in_channels, channels, act=True)
        self.project = GhostModule(channels, channels, act=False)
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, kernel, 1, kernel // 2, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.project(self.expand(features)) + self.shortcut(features)


class GhostPAN(nn.Module):
    """Path aggregation pyramid with ``channels`` channels and one level more than the backbone.

    Top-down, each level is concatenated with the coarser one (bilinear upsampling); bottom-up, with the finer one
    (strided convolution). The extra level is the sum of two strided convolutions, of the reduced coarsest map and of
    the aggregated one.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, kernel: int = 5) -> None:
        super().__init__()
        steps = len(in_channels) - 1
        self.reduce = nn.ModuleList([_reduction(count, channels) for count in in_channels])
        self.top_down = nn.ModuleList([GhostBottleneck(2 * channels, channels, kernel) for _ in range(steps)])
        self.downsample = nn.ModuleList([DepthwiseSeparable(channels, channels, kernel, 2) for _ in range(steps)])
        self.bottom_up = nn.ModuleList([GhostBottleneck(2 * channels, channels, kernel) for _ in range(steps)])
        self.extra_input = DepthwiseSeparable(channels, channels, kernel, 2)
        self.extra_output = DepthwiseSeparable(channels, channels, kernel, 2)
        self.channels = channels
        self.strides: tuple[int, ...] = (*strides, strides[-1] * 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        reduced = [reduce(level) for reduce, level in zip(self.reduce, maps, strict=True)]
        down = [reduced[-1]]
        for step, level in zip(self.top_down, reversed(reduced[:-1]), strict=True):
            raised = functional.interpolate(down[0], size=level.shape[-2:], mode="bilinear", align_corners=False)
            down.insert(0, step(torch.cat((raised, level), 1)))
        pyramid = [down[0]]
        for lower, step, level in zip(self.downsample, self.bottom_up, itertools.islice(down, 1, None), strict=True):
            pyramid.append(step(torch.cat((lower(pyramid[-1]), level), 1)))
        return [*pyramid, self.extra_input(reduced[-1]) + self.extra_output(pyramid[-1])]


def _reduction(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), leaky())
