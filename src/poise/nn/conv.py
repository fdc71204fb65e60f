"""The 3x3 convolution of necks and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.nn.kernels.winograd import conv3x3

MIN_TILES = 48  # 4x4 output tiles from which transforming the weights pays
MIN_CHANNELS = (128, 64)  # input and output channels from which fewer multiplications save time


class Conv3x3(nn.Conv2d):
    """3x3 convolution of stride 1 and padding 1, of one map or of several maps with the same weights.

    Large maps with many channels use the Winograd kernel in eager float32 on a CPU; everything else, and every compiled
    or exported graph, uses ``torch.nn.functional.conv2d``.
    """

    def __init__(self, in_channels: int, channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, channels, 3, 1, 1, bias=bias)

    @overload
    def forward(self, maps: Tensor) -> Tensor: ...
    @overload
    def forward(self, maps: list[Tensor]) -> list[Tensor]: ...
    def forward(self, maps: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Convolve (B,C,H,W) to (B,C',H,W), or a list of such maps to a list."""
        levels = [maps] if isinstance(maps, Tensor) else list(maps)
        if winograd_is_faster(levels, self.weight):
            results = conv3x3(levels, self.weight, self.bias)
        else:
            results = [functional.conv2d(level, self.weight, self.bias, padding=1) for level in levels]
        return results[0] if isinstance(maps, Tensor) else results


def winograd_is_faster(levels: Sequence[Tensor], weight: Tensor) -> bool:
    """Return whether the Winograd kernel can convolve ``levels`` (B,C,H,W) here, and is faster than torch's."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if weight.shape[1] < MIN_CHANNELS[0] or weight.shape[0] < MIN_CHANNELS[1]:
        return False
    if any(value.device.type != "cpu" or value.dtype != torch.float32 for value in (*levels, weight)):
        return False
    tiles = sum(batch * -(-height // 4) * -(-width // 4) for batch, _, height, width in (x.shape for x in levels))
    return tiles >= MIN_TILES
