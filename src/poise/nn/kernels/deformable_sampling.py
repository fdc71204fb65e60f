"""Weighted sums of bilinear samples: the kernel of multi-scale deformable attention (Zhu et al. 2021, eq. 3).

A bilinear sample is a weighted sum of four cells, so a weighted sum of samples is a weighted sum of cells, which
``embedding_bag`` computes without storing the samples. Deformable convolution on CPUs uses the same sums. On CUDA
devices attention uses the Triton kernel of ``deformable_triton.py``.
"""

from __future__ import annotations

import functools
import importlib
import os
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import deform_conv2d

from poise.nn.kernels.bilinear_sums import Shape, SumOfSamples, neighbors, on_device


def sample_levels(value: Tensor, shapes: tuple[Shape, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """Sum bilinear samples with weights, in float32; samples are 0 outside the maps and at locations that are not
    finite.

    CUDA devices use the Triton kernel where ``has_kernel``, unless ``torch.use_deterministic_algorithms`` is set: the
    kernel's backward pass adds in any order. Otherwise ``sample_in_bags`` is used.

    Args:
        value: (B,N,H,D) values of the tokens of all levels for each of H heads.
        shapes: height and width of each level.
        locations: (B,Q,H,L,P,2) x, y, normalized: [0,1] spans the map from edge to edge.
        weights: (B,Q,H,L,P).

    Returns:
        (B,Q,H*D) float32.
    """
    with torch.autocast(value.device.type, enabled=False):
        if value.is_cuda and has_kernel() and not torch.are_deterministic_algorithms_enabled():
            flat = [length for shape in shapes for length in shape]
            return torch.ops.poise.sample_levels(value, flat, locations.float(), weights.float())
        return sample_in_bags(value.float(), shapes, locations.float(), weights.float())


def has_kernel() -> bool:
    """Return whether CUDA devices use the Triton kernel.

    They do where Triton is installed and every GPU has compute capability 7, unless the environment variable
    ``POISE_TRITON`` is 0. It is read once.
    """
    return _load_kernel()


# what torch.compiler.assume_constant_result sets; calling it would import the compiler, which predictions do not need
has_kernel._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _load_kernel() -> bool:
    if os.environ.get("POISE_TRITON") == "0" or find_spec("triton") is None:
        return False
    if any(torch.cuda.get_device_capability(gpu) < (7, 0) for gpu in range(torch.cuda.device_count())):
        return False
    importlib.import_module("poise.nn.kernels.deformable_triton")
    return True


def sample_in_bags(value: Tensor, shapes: tuple[Shape, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute ``sample_levels`` by ``embedding_bag``; all tensors have one floating-point type, as has the result."""
    nonempty = [level for level, (height, width) in enumerate(shapes) if height and width]
    if len(nonempty) < len(shapes):
        remaining = tuple(shapes[level] for level in nonempty)
        return sample_in_bags(value, remaining, locations[:, :, :, nonempty], weights[:, :, :, nonempty])
    height, width = (on_device(sides, torch.int32, value.device)[:, None] for sides in zip(*shapes, strict=True))
    locations = locations - 0.5 + 0.5  # the same rounding as grid_sample, which published models used
    return _sum_in_bags(value, shapes, locations[..., 0] * width - 0.5, locations[..., 1] * height - 0.5, weights)


def _sum_in_bags(value: Tensor, shapes: tuple[Shape, ...], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of bilinear samples at ``x`` and ``y`` (B,Q,H,L,P) in cells of each level."""
    batch, tokens, heads, depth = value.shape
    device = value.device
    if device.type == "cpu" and weights.numel() and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        bags = [t.reshape(-1, *t.shape[3:]) for t in (x, y, weights)]
        sums: Tensor = SumOfSamples.apply(value, shapes, *bags)
        return sums.reshape(batch, -1, heads * depth)
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    columns_of_shapes = (*zip(*shapes, strict=True), starts)
    height, width, start = (on_device(numbers, torch.int32, device)[:, None] for numbers in columns_of_shapes)  # (L,1)
    image = torch.arange(batch, device=device, dtype=torch.int32)[:, None, None] * tokens
    first = (image * heads + torch.arange(heads, device=device, dtype=torch.int32))[..., None, None]
    columns = [(first + column * heads, weight) for column, weight, _ in neighbors(x, width)]
    rows = [((start + row * width) * heads, weight * weights) for row, weight, _ in neighbors(y, height)]
    index = torch.stack([row + column for row, _ in rows for column, _ in columns], 3)  # (B,Q,H,4,L,P)
    cell_weights = torch.stack([by_row * by_column for _, by_row in rows for _, by_column in columns], 3)
    index, cell_weights = (t.flatten(0, 2).flatten(1) for t in (index, cell_weights))
    sums = functional.embedding_bag(index, value.flatten(0, 2), mode="sum", per_sample_weights=cell_weights)
    return sums.reshape(batch, -1, heads * depth)


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


def deform_conv_in_bags(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    mask: Tensor | None,
) -> Tensor:
    """Compute ``torchvision.ops.deform_conv2d`` of one group as 1x1 convolutions followed by a sum of bilinear samples.

    Sampling is linear, so each tap's matrix is applied before the map is sampled, and the taps of an output are one bag
    of cells. Forward and backward take a sixth of torchvision's time on a CPU. Arguments are those of
    ``deform_conv2d``.
    """
    batch, _, height, width = x.shape
    channels, _, kernel, _ = weight.shape
    taps, (rows, columns) = kernel * kernel, offset.shape[2:]
    matrices = weight.permute(1, 2, 3, 0).reshape(-1, taps * channels)
    value = x.flatten(2).transpose(1, 2) @ matrices  # (B,H*W,taps*channels): copied in rows of channels below
    value = value.reshape(batch, height * width, taps, channels).transpose(1, 2)
    tap = torch.arange(kernel, device=x.device) * dilation - padding
    grid_y = torch.arange(rows, device=x.device)[:, None, None] * stride + tap.repeat_interleave(kernel)
    grid_x = torch.arange(columns, device=x.device)[:, None] * stride + tap.repeat(kernel)
    offset_y, offset_x = offset.reshape(batch, taps, 2, rows, columns).permute(2, 0, 3, 4, 1)
    weights = torch.ones_like(offset_y) if mask is None else mask.permute(0, 2, 3, 1)
    form = batch, rows * columns, 1, taps, 1
    x, y, weights = ((offset_x + grid_x).reshape(form), (offset_y + grid_y).reshape(form), weights.reshape(form))
    sums = _sum_in_bags(value.reshape(batch, -1, 1, channels), ((height, width),) * taps, x, y, weights)
    sums = sums if bias is None else sums + bias
    return sums.transpose(1, 2).reshape(batch, channels, rows, columns)
