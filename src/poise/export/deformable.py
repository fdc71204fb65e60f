"""Deformable convolution of operators that every runtime has; it stands in for torchvision's in exported graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def plain_deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """``torch.ops.torchvision.deform_conv2d`` for square kernels.

    Every tap of every place is read by one bilinear sampling into a map that is a kernel wider and higher; a plain
    convolution whose stride is the kernel's size then meets each place's own taps. Positions are fp32 in any precision.
    """
    kernel = weight.shape[-1]
    if weight.shape[-2] != kernel:
        raise ValueError(f"deformable kernels of {tuple(weight.shape[-2:])} cannot be exported, only square ones")
    batch, channels, height, width = x.shape
    moves = offset.reshape(batch, offset_groups * kernel * kernel, 2, *offset.shape[-2:])
    rows, columns = (functional.pixel_shuffle(moves[:, :, axis].float(), kernel) for axis in (0, 1))
    rows = rows + _places(rows.shape[2], kernel, stride_h, pad_h, dilation_h, rows)[:, None]
    columns = columns + _places(columns.shape[3], kernel, stride_w, pad_w, dilation_w, rows)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    parts = x.float().reshape(batch * offset_groups, channels // offset_groups, height, width)
    taps = functional.grid_sample(parts, grid.flatten(0, 1), align_corners=False).to(x.dtype)
    if use_mask:
        gates = functional.pixel_shuffle(mask, kernel)
        taps = taps * gates.reshape(batch * offset_groups, 1, *gates.shape[2:])
    taps = taps.reshape(batch, channels, *taps.shape[2:])
    return functional.conv2d(taps, weight, bias, stride=kernel, groups=groups)


def _places(length: int, kernel: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """Where the taps of a kernel at rest read: of place 0 the taps 0 … k - 1, then of place 1, and so on."""
    taps = torch.arange(kernel, device=like.device, dtype=like.dtype) * dilation - padding
    places = torch.arange(length // kernel, device=like.device, dtype=like.dtype) * stride
    return (places[:, None] + taps).flatten()


DECOMPOSITIONS: dict[Any, Any] = {torch.ops.torchvision.deform_conv2d.default: plain_deform_conv2d}
