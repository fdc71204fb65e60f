"""Deformable convolution (Dai et al. 2017, Zhu et al. 2019): torchvision's operator, and a faster form on CPUs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from poise.nn.kernels.deformable_sampling import sample_in_bags


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
    bagged = x.device.type == "cpu" and kind in (torch.float32, torch.float64) and x.numel() and offset.numel()
    one_group = x.shape[1] == weight.shape[1]
    form = deform_in_bags if bagged and one_group and not _is_traced() else deform_conv2d
    with torch.autocast(x.device.type, enabled=False):
        moved = form(x.to(kind), offset.to(kind), weight, bias, stride, padding, dilation, gate)
    return moved.to(x.dtype)


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def deform_in_bags(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    gate: Tensor | None,
) -> Tensor:
    """``deform_conv2d`` of one group as 1x1 convolutions, one per tap, followed by a sum of bilinear samples.

    Sampling is linear, so each tap's matrix is applied to the map before the map is sampled, and the taps of an output
    are one bag of cells (``sample_in_bags``). Forward and backward take a sixth of torchvision's time on a CPU.
    """
    batch, _, height, width = x.shape
    channels, _, kernel, _ = weight.shape
    taps, (rows, columns) = kernel * kernel, offset.shape[2:]
    matrices = weight.permute(2, 3, 0, 1).reshape(taps * channels, -1, 1, 1)
    value = functional.conv2d(x, matrices).reshape(batch, taps, channels, -1).transpose(2, 3)
    tap = torch.arange(kernel, device=x.device) * dilation - padding
    y = torch.arange(rows, device=x.device)[:, None, None] * stride + tap.repeat_interleave(kernel)
    x_of_tap = torch.arange(columns, device=x.device)[:, None] * stride + tap.repeat(kernel)
    moved_y, moved_x = offset.reshape(batch, taps, 2, rows, columns).permute(2, 0, 3, 4, 1)
    locations = torch.stack(((moved_x + x_of_tap + 0.5) / width, (moved_y + y + 0.5) / height), -1)
    share = torch.ones_like(moved_y) if gate is None else gate.permute(0, 2, 3, 1)
    shape = batch, rows * columns, 1, taps, 1
    found = sample_in_bags(
        value.reshape(batch, -1, 1, channels),
        ((height, width),) * taps,
        locations.reshape(*shape, 2),
        share.reshape(shape),
    )
    found = found if bias is None else found + bias
    return found.transpose(1, 2).reshape(batch, channels, rows, columns)


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
