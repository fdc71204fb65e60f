"""Feature pyramid network (FPN: Lin et al. 2017) and the coarser levels that detectors add to it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from poise.nn.layers import Conv3x3, StridedConv


class NormedConv(StridedConv):
    """Convolution without bias, then group norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int, groups: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.GroupNorm(min(groups, max(1, channels // 4)), channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


def _conv(in_channels: int, channels: int, kernel: int, groups: int, stride: int = 1) -> nn.Conv2d:
    if groups:
        return NormedConv(in_channels, channels, kernel, groups, stride=stride)
    if (kernel, stride) == (3, 1):
        return Conv3x3(in_channels, channels)
    return (StridedConv if stride == 2 else nn.Conv2d)(in_channels, channels, kernel, stride, kernel // 2)


class StridedLevels(nn.Module):
    """Two coarser levels (P6, P7) by 3x3 convolutions of stride 2.

    Args:
        in_channels: of the map that P6 reads.
        from_input: P6 reads the backbone's last map (RetinaNet) instead of the pyramid's (FCOS, ATSS).
        relu: apply ReLU to P6 before P7 reads it.
        groups: of a group norm after each convolution; 0: none.
    """

    def __init__(self, in_channels: int, channels: int, from_input: bool, relu: bool, *, groups: int = 0) -> None:
        super().__init__()
        self.from_input, self.relu = from_input, relu
        self.convs = nn.ModuleList([_conv(count, channels, 3, groups, 2) for count in (in_channels, channels)])

    def forward(self, backbone_map: Tensor, pyramid_map: Tensor) -> list[Tensor]:
        p6 = self.convs[0](backbone_map if self.from_input else pyramid_map)
        return [p6, self.convs[1](p6.relu() if self.relu else p6)]


class SubsampledLevel(nn.Module):
    """One coarser level (P6): P5 subsampled by two (Faster R-CNN)."""

    def forward(self, backbone_map: Tensor, pyramid_map: Tensor) -> list[Tensor]:
        return [functional.max_pool2d(pyramid_map, 1, 2)]


class NoLevels(nn.Module):
    """No additional level (YOLOX)."""

    def forward(self, backbone_map: Tensor, pyramid_map: Tensor) -> list[Tensor]:
        return []


class FPN(nn.Module):
    """Top-down feature pyramid with lateral connections.

    Args:
        in_channels, strides: of the backbone's maps.
        extra: ``(backbone_map, pyramid_map) -> list`` of coarser levels, of the last map each.
        groups: of a group norm after each convolution; 0: none.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], channels: int, extra: nn.Module, *, groups: int = 0
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList([_conv(count, channels, 1, groups) for count in in_channels])
        self.outputs = nn.ModuleList([_conv(channels, channels, 3, groups) for _ in in_channels])
        self.extra = extra
        added = len(extra.convs) if isinstance(extra, StridedLevels) else int(not isinstance(extra, NoLevels))
        self.channels = channels
        self.strides: tuple[int, ...] = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(added)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        merged = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + functional.interpolate(merged[i], size=merged[i - 1].shape[-2:])
        pyramid = [output(level) for output, level in zip(self.outputs, merged, strict=True)]
        return pyramid + self.extra(maps[-1], pyramid[-1])
