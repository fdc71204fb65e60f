"""Layers of necks and dense heads: convolutions, towers, output convolutions, and grids of priors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.nn.kernels.deformable_sampling import deform
from poise.nn.kernels.winograd import conv3x3
from poise.structures import Priors

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


class DeformableConv(nn.Module):
    """Deformable convolution (Dai et al. 2017; Zhu et al. 2019) with one offset group.

    Offsets and masks are predicted by a convolution of the input. Offsets start at 0, so it starts as the plain
    convolution; with masks, which start at 1/2, as half of it.

    Args:
        gated: weight each tap by a mask in [0,1] (DCNv2); otherwise taps are only moved (DCNv1).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.taps = stride, padding, dilation, kernel * kernel
        self.weight = nn.Parameter(torch.empty(channels, in_channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        bound = 1 / math.sqrt(in_channels // groups * kernel * kernel)
        nn.init.uniform_(self.weight, -bound, bound)
        outputs = (3 if gated else 2) * self.taps
        self.conv_offset = nn.Conv2d(in_channels, outputs, kernel, stride, padding, dilation)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B,C,H,W) to (B,C',H',W'); predicted offsets are (y, x) of each tap in row-major order."""
        predicted = self.conv_offset(x)
        offset, logits = predicted[:, : 2 * self.taps], predicted[:, 2 * self.taps :]
        mask = logits.sigmoid() if logits.shape[1] else None
        return deform(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)

    @staticmethod
    def of(conv: nn.Conv2d, gated: bool = True) -> DeformableConv:
        """Return a deformable convolution with the shape and the weights of a plain one."""
        deformable = DeformableConv(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            padding=int(conv.padding[0]),
            dilation=conv.dilation[0],
            groups=conv.groups,
            bias=conv.bias is not None,
            gated=gated,
        )
        deformable.load_state_dict(conv.state_dict(), strict=False)
        return deformable


class SharedLayers(nn.Sequential):
    """A sequence of layers, applied to one map or to several maps with the same weights."""

    @overload
    def forward(self, maps: Tensor) -> Tensor: ...
    @overload
    def forward(self, maps: list[Tensor]) -> list[Tensor]: ...
    def forward(self, maps: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Apply the layers to (B,C,H,W), or to a list of such maps; heights and widths do not change."""
        for layer in self:
            at_once = isinstance(maps, Tensor) or isinstance(layer, (SharedLayers, Conv3x3))
            maps = layer(maps) if at_once else [layer(level) for level in maps]
        return maps


class ConvNorm(SharedLayers):
    """3x3 convolution (with ``deformable`` a deformable one), group norm (unless ``groups`` is 0), ReLU."""

    def __init__(self, in_channels: int, channels: int, groups: int, bias: bool, *, deformable: bool = False) -> None:
        super().__init__()
        conv = Conv3x3(in_channels, channels, bias)
        self.add_module("conv", DeformableConv.of(conv) if deformable else conv)
        if groups:  # narrow towers keep four channels a group, so that a 1x1 map of one image can be normalized
            self.add_module("norm", nn.GroupNorm(min(groups, max(1, channels // 4)), channels))
        self.add_module("act", nn.ReLU(inplace=True))


def tower(
    channels: int, depth: int = 4, groups: int = 32, bias: bool = False, *, deformable: bool = False
) -> SharedLayers:
    """Return ``depth`` equal layers of ``ConvNorm``.

    Args:
        channels: of all maps.
        depth: number of layers.
        groups: of the group norm; 0 for none (then convolutions always have a bias).
        bias: whether convolutions before a norm have a bias.
        deformable: makes the last convolution deformable.
    """
    layers = range(depth)
    bias = bias or not groups
    return SharedLayers(
        *[ConvNorm(channels, channels, groups, bias, deformable=deformable and i == depth - 1) for i in layers]
    )


def output_conv(channels: int, outputs: int, bias: float = 0.0) -> Conv3x3:
    """Return a 3x3 output convolution, initialized with weights N(0, 0.01) and a constant bias."""
    conv = Conv3x3(channels, outputs)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.get_parameter("bias"), bias)
    return conv


def prior_bias(probability: float = 0.01) -> float:
    """Return the bias with which a sigmoid output starts at ``probability`` (Lin et al. 2017, section 4.1)."""
    return -math.log((1 - probability) / probability)


def init_towers(*towers: nn.Module) -> None:
    """Initialize all convolutions with weights N(0, 0.01) and biases 0."""
    for module in (module for part in towers for module in part.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class StridedConv(nn.Conv2d):
    """A convolution of stride 2.

    Maps one cell wide are computed in float32: PyTorch's bfloat16 kernel on CPUs (seen in 2.14) leaves parts of their
    weight gradient uninitialized.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


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


def single(output: Tensor) -> Tensor:
    """Return a head's output in float32.

    A float16 number that overflowed becomes the largest float16 number, so that losses stay finite.
    """
    largest = torch.finfo(torch.float16).max
    return output.float().clamp(-largest, largest) if output.dtype == torch.float16 else output.float()


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors of every cell of every level, centered ``offset`` strides from the top left corner of the cell.

    Args:
        strides: px of a cell, one for each level.
        scales: square roots of the anchors' areas in strides.
        ratios: height / width; the anchors of a cell are ordered by ratio, then by scale.
        offset: strides. With one scale of 1 and one ratio of 1 the anchors are points: boxes of one stride.
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = (1.0,)
    offset: float = 0.0

    @property
    def count(self) -> int:
        """Number of anchors per cell."""
        return len(self.scales) * len(self.ratios)

    def __call__(self, maps: Sequence[Tensor]) -> Priors:
        """Return the priors of maps (B,C,H_l,W_l)."""
        boxes, strides, sizes = [], [], []
        for level, stride in zip(maps, self.strides, strict=True):
            height, width = level.shape[-2:]
            y = (torch.arange(height, device=level.device, dtype=torch.float32) + self.offset) * stride
            x = (torch.arange(width, device=level.device, dtype=torch.float32) + self.offset) * stride
            x, y = x.expand(height, width).flatten(), y[:, None].expand(height, width).flatten()
            cell = []
            for ratio, scale in product(self.ratios, self.scales):
                w, h = scale / math.sqrt(ratio) / 2 * stride, scale * math.sqrt(ratio) / 2 * stride
                cell.append(torch.stack((x - w, y - h, x + w, y + h), 1))
            boxes.append(torch.stack(cell, 1).reshape(-1, 4))
            sizes.append(height * width * self.count)
            strides.append(torch.full((sizes[-1],), float(stride), device=level.device))
        return Priors(torch.cat(boxes)[None], torch.cat(strides), tuple(sizes))

    def flatten(self, *outputs: Sequence[Tensor]) -> list[Tensor]:
        """Concatenate the levels of each output, maps (B,A*width,H_l,W_l) of A anchors a cell, to (B,N,width) float32.

        The order is that of the priors: level-major, row-major, anchors innermost.
        """
        flat = []
        for levels in outputs:
            width = levels[0].shape[1] // self.count
            rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in levels]
            flat.append(single(torch.cat(rows, 1)))
        return flat


def point_grid(strides: Sequence[int], offset: float) -> AnchorGrid:
    """Return a grid of one point per cell."""
    return AnchorGrid(tuple(strides), offset=offset)


def square_anchors(strides: Sequence[int], scale: float = 8.0) -> AnchorGrid:
    """Return a grid of one square anchor per cell, centered on the corner of the cell (ATSS, GFL)."""
    return AnchorGrid(tuple(strides), (scale,))


def retina_anchors(strides: Sequence[int], base: float = 4.0, octaves: int = 3) -> AnchorGrid:
    """Return RetinaNet's grid of nine anchors per cell: three scales within an octave, three ratios."""
    return AnchorGrid(tuple(strides), tuple(base * 2 ** (i / octaves) for i in range(octaves)), (0.5, 1.0, 2.0))
