"""Deformable convolution and stable sorting from standard operators, which replace them in exported graphs."""

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

    One bilinear sampling reads every kernel tap of every output position into a map that is larger by the kernel's size
    in both directions. A convolution with the kernel's size as stride then sees the taps of each position. Sampling
    positions are fp32 in any precision.
    """
    kernel = weight.shape[-1]
    if weight.shape[-2] != kernel:
        raise ValueError(f"deformable kernels of {tuple(weight.shape[-2:])} cannot be exported, only square ones")
    batch, channels, height, width = x.shape
    offsets = offset.reshape(batch, offset_groups * kernel * kernel, 2, *offset.shape[-2:])
    rows, columns = (functional.pixel_shuffle(offsets[:, :, axis].float(), kernel) for axis in (0, 1))
    rows = rows + _tap_positions(rows.shape[2], kernel, stride_h, pad_h, dilation_h, rows)[:, None]
    columns = columns + _tap_positions(columns.shape[3], kernel, stride_w, pad_w, dilation_w, rows)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    parts = x.float().reshape(batch * offset_groups, channels // offset_groups, height, width)
    taps = functional.grid_sample(parts, grid.flatten(0, 1), align_corners=False).to(x.dtype)
    if use_mask:
        gates = functional.pixel_shuffle(mask, kernel)
        taps = taps * gates.reshape(batch * offset_groups, 1, *gates.shape[2:])
    taps = taps.reshape(batch, channels, *taps.shape[2:])
    return functional.conv2d(taps, weight, bias, stride=kernel, groups=groups)


def _tap_positions(length: int, kernel: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """Return the positions of the taps without offsets: taps 0 … k - 1 of output 0, then of output 1, and so on."""
    taps = torch.arange(kernel, device=like.device, dtype=like.dtype) * dilation - padding
    outputs = torch.arange(length // kernel, device=like.device, dtype=like.dtype) * stride
    return (outputs[:, None] + taps).flatten()


def plain_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """``torch.sort`` by ``topk``, whose ties the runtimes leave in order."""
    return x.topk(x.shape[dim], dim, largest=descending)


DECOMPOSITIONS: dict[Any, Any] = {
    torch.ops.torchvision.deform_conv2d.default: plain_deform_conv2d,
    torch.ops.aten.sort.stable: plain_sort,
}
