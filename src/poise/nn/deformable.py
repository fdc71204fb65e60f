"""Deformable convolution (Dai et al. 2017, Zhu et al. 2019) over torchvision's operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Module):
    """A convolution whose taps are moved and, if ``gated``, weighted by what it sees (DCNv2, else DCNv1; one group).

    Starts as the plain convolution, offsets being zero; where gated with half of every weight, gates being 1/2.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
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
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C',H',W'); offsets are (y, x) of each tap, row-major, then one gate a tap."""
        moves = self.conv_offset(x)
        offset, gate = moves[:, : 2 * self.taps], moves[:, 2 * self.taps :]
        gates = gate.sigmoid() if gate.shape[1] else None
        return deform(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, gates)

    @staticmethod
    def of(conv: nn.Conv2d, gated: bool = True) -> DeformableConv:
        """A deformable convolution with the shape and the weights of a plain one."""
        deformable = DeformableConv(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            int(conv.padding[0]),
            conv.dilation[0],
            conv.groups,
            conv.bias is not None,
            gated,
        )
        deformable.load_state_dict(conv.state_dict(), strict=False)
        return deformable


def deform(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    gate: Tensor | None = None,
) -> Tensor:
    """``deform_conv2d`` in the precision of its weights, so that it also runs inside autocast; returns x's dtype."""
    kind = weight.dtype
    gate = None if gate is None else gate.to(kind)
    with torch.autocast(x.device.type, enabled=False):
        moved = deform_conv2d(x.to(kind), offset.to(kind), weight, bias, stride, padding, dilation, gate)
    return moved.to(x.dtype)


def make_deformable(stage: nn.Module, gated: bool = True) -> int:
    """Replace the 3x3 convolutions of a ResNet, ResNeXt or Res2Net stage; returns how many."""
    replaced = 0
    for block in list(stage.modules()):
        conv = getattr(block, "conv2", None)
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            block.conv2 = DeformableConv.of(conv, gated)
            replaced += 1
        convs = getattr(block, "convs", None)
        if isinstance(convs, nn.ModuleList):
            block.convs = nn.ModuleList([DeformableConv.of(c, gated) if isinstance(c, nn.Conv2d) else c for c in convs])
            replaced += len(convs)
    return replaced
