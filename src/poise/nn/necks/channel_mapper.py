"""The neck of the DETR family: projects backbone maps to the same number of channels and adds coarser levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.nn.layers import StridedConv


class ChannelMapper(nn.Module):
    """1x1 convolutions of the backbone's maps, then ``extra`` 3x3 convolutions of stride 2, first of the last backbone
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
