"""Deformable convolution: DCNv1 (Dai et al. 2017) and DCNv2 (Zhu et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from poise.nn.kernels.deformable_sampling import deform_conv_in_bags


class DeformableConv(nn.Module):
    """Deformable convolution with one offset group; offsets and masks are predicted by a convolution of the input.

    Offsets start at 0, so it starts as the plain convolution; with masks, which start at 1/2, as half of it.

    Args:
        gated: weight each tap by a mask in [0,1] (DCNv2); otherwise taps are only moved (DCNv1).
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
    mask: Tensor | None = None,
) -> Tensor:
    """Compute ``torchvision.ops.deform_conv2d`` in the precision of the weight, also inside autocast; returns x's
    dtype.

    In eager mode on a CPU a faster kernel computes convolutions of one group.
    """
    dtype = weight.dtype
    in_bags = x.device.type == "cpu" and dtype in (torch.float32, torch.float64) and x.numel() and offset.numel()
    in_bags = in_bags and x.shape[1] == weight.shape[1]
    in_bags = in_bags and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    kernel = deform_conv_in_bags if in_bags else deform_conv2d
    mask = None if mask is None else mask.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        output = kernel(x.to(dtype), offset.to(dtype), weight, bias, stride, padding, dilation, mask)
    return output.to(x.dtype)


def make_deformable(stage: nn.Module, gated: bool = True) -> int:
    """Replace the 3x3 convolutions of a ResNet, ResNeXt or Res2Net stage by deformable ones; return their number."""
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
