"""Feature pyramids: FPN (Lin et al. 2017) with the coarser levels that detectors add to it, and the balanced feature
pyramid (BFP) of Libra R-CNN (Pang et al. 2019, section 3.2)."""

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


class NonLocal(nn.Module):
    """Embedded-Gaussian non-local block (Wang et al. 2018): each position adds a weighted mean over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.value, self.output = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor) -> Tensor:
        query, key, value = (
            part(level).flatten(2).transpose(1, 2)[:, None] for part in (self.query, self.key, self.value)
        )
        mean = functional.scaled_dot_product_attention(query, key, value, scale=1.0)  # not divided by sqrt(channels)
        return level + self.output(mean[:, 0].transpose(1, 2).reshape(level.shape))


class Convolved(nn.Sequential):
    """A 3x3 convolution and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(channels, channels, 3, 1, 1))
        self.add_module("act", nn.ReLU())


REFINEMENTS: dict[str, type[nn.Module] | None] = {"none": None, "conv": Convolved, "non_local": NonLocal}


class BalancedPyramid(nn.Module):
    """Resizes all levels to one size, averages them (eq. 4), refines the mean and adds it to every level.

    Maps (B,C,H_l,W_l) may come from any pyramid, finest first; sizes need not be exact halves. As in the published code
    all convolutions are initialized by Xavier's distribution, so that the non-local block does not start as the
    identity.

    Args:
        channels: C.
        level: whose size the resized maps have (published models: the level of stride 16).
        refine: ``"none"``, ``"conv"`` or ``"non_local"``.
    """

    def __init__(self, channels: int, level: int = 2, refine: str = "non_local") -> None:
        super().__init__()
        if refine not in REFINEMENTS:
            raise ValueError(f"refine='{refine}': one of {', '.join(REFINEMENTS)}")
        self.level = level
        build = REFINEMENTS[refine]
        self.refine = nn.Identity() if build is None else build(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        if not 0 <= self.level < len(maps):
            raise ValueError(f"BalancedPyramid gathers at level {self.level}, there are {len(maps)}")
        size = maps[self.level].shape[-2:]
        gathered = [_resize(level, size, shrink=i < self.level) for i, level in enumerate(maps)]
        balanced = self.refine(sum(gathered[1:], gathered[0]) / len(gathered))
        return [level + _resize(balanced, level.shape[-2:], shrink=i >= self.level) for i, level in enumerate(maps)]


def balanced_pyramid(channels: int, strides: Sequence[int], level: int | None, refine: str) -> BalancedPyramid:
    """Return a balanced feature pyramid for maps of ``strides``; ``level`` None: that of stride 16, or the second.

    Raises:
        ValueError: the pyramid does not have the level, or the refinement is unknown.
    """
    if level is None:
        level = strides.index(16) if 16 in strides else min(1, len(strides) - 1)
    if not 0 <= level < len(strides):
        raise ValueError(f"refine_level={level}: the pyramid has levels 0 to {len(strides) - 1}, of strides {strides}")
    return BalancedPyramid(channels, level, refine)


def _resize(level: Tensor, size: tuple[int, ...], shrink: bool) -> Tensor:
    """Resize a map: adaptive max pooling to a smaller size, nearest-neighbor interpolation to a larger one."""
    if level.shape[-2:] == size:
        return level
    return functional.adaptive_max_pool2d(level, size) if shrink else functional.interpolate(level, size=size)
