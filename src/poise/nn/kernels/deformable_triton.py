"""Triton kernels of ``deformable_sampling.sample_levels``, forward and exact backward (Zhu et al. 2021, eq. 3).

Each level is one launch; a program processes a block of queries of one head. Values may be float32, float16 or
bfloat16; sums are float32. Loads and stores are masked, so that no location, not even NaN, reads outside a map.
Importing this file imports Triton and registers the operator ``poise::sample_levels``;
``deformable_sampling.has_kernel`` imports it. Kernels have no annotations, because Triton interprets annotations
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NOT_SPECIALIZED = [
    "tokens",
    "queries",
    "heads",
    "depth",
    "samples",
    "first",
    "height",
    "width",
    "start",
]  # arguments whose new values cause no recompilation


@triton.jit
def _program(tokens, queries, heads, depth, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    """Return of this program's queries which exist, their index, offsets of values, and offsets and mask of outputs."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    query, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DEPTH)
    valid, index = query < queries, (batch.to(tl.int64) * queries + query) * heads + head
    vectors = (batch.to(tl.int64) * tokens * heads + head) * depth
    offsets, exists = index[:, None] * depth + channel[None, :], valid[:, None] & (channel < depth)[None, :]
    return valid, index, vectors, channel, offsets, exists


@triton.jit
def _position(locations, sample, valid, height, width):
    """Return x and y in cells; locations that touch no cell, or are not finite, are moved outside the map."""
    # x - 0.5 + 0.5 is the rounding of grid_sample
    x = (tl.load(locations + 2 * sample, mask=valid, other=-1.0) - 0.5 + 0.5) * width - 0.5
    y = (tl.load(locations + 2 * sample + 1, mask=valid, other=-1.0) - 0.5 + 0.5) * height - 0.5
    near = (x >= -1) & (x < width) & (y >= -1) & (y < height)
    return tl.where(near, x, -2.0), tl.where(near, y, -2.0)


@triton.jit
def _cell(row, column, height, width, start, step, channel, depth):
    """Return the offsets of the values of cells, and the mask of those that exist."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    token = start + row.to(tl.int32) * width + column.to(tl.int32)
    offsets = token.to(tl.int64)[:, None] * step + channel[None, :]
    return offsets, inside[:, None] & (channel < depth)[None, :]


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _forward(
    value, locations, weights, output,
    tokens, queries, heads, depth, samples, first, height, width, start,
    POINTS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Add one level's weighted sums to ``output`` (B,Q,H,D)."""
    valid, index, vectors, channel, offsets, exists = _program(tokens, queries, heads, depth, BLOCK, DEPTH)
    step = heads * depth
    total = tl.load(output + offsets, mask=exists, other=0.0)
    for point in range(POINTS):
        sample = index * samples + first + point
        x, y = _position(locations, sample, valid, height, width)
        weight = tl.load(weights + sample, mask=valid, other=0.0)
        left, top = tl.floor(x), tl.floor(y)
        for corner in tl.static_range(4):
            row, column = top + corner // 2, left + corner % 2
            corner_weight = (1 - tl.abs(x - column)) * (1 - tl.abs(y - row)) * weight
            cell, inside = _cell(row, column, height, width, start, step, channel, depth)
            total += corner_weight[:, None] * tl.load(value + vectors + cell, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + offsets, total, mask=exists)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _backward(
    value, locations, weights, gradient, to_value, to_locations, to_weights,
    tokens, queries, heads, depth, samples, first, height, width, start,
    POINTS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Add one level's part to the gradient of the values; write the gradients of its locations and weights."""
    valid, index, vectors, channel, offsets, exists = _program(tokens, queries, heads, depth, BLOCK, DEPTH)
    step = heads * depth
    grad = tl.load(gradient + offsets, mask=exists, other=0.0)
    for point in range(POINTS):
        sample = index * samples + first + point
        x, y = _position(locations, sample, valid, height, width)
        weight = tl.load(weights + sample, mask=valid, other=0.0)
        left, top = tl.floor(x), tl.floor(y)
        to_x, to_y, to_weight = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
        for corner in tl.static_range(4):
            below, right = corner // 2, corner % 2
            row, column = top + below, left + right
            across, along = 1 - tl.abs(x - column), 1 - tl.abs(y - row)
            cell, inside = _cell(row, column, height, width, start, step, channel, depth)
            found = tl.load(value + vectors + cell, mask=inside, other=0.0).to(tl.float32)
            dot = tl.sum(found * grad, 1)
            to_x += (2 * right - 1) * along * dot
            to_y += (2 * below - 1) * across * dot
            to_weight += across * along * dot
            tl.atomic_add(to_value + vectors + cell, (across * along * weight)[:, None] * grad, mask=inside)
        tl.store(to_locations + 2 * sample, to_x * weight * width, mask=valid)
        tl.store(to_locations + 2 * sample + 1, to_y * weight * height, mask=valid)
        tl.store(to_weights + sample, to_weight, mask=valid)


@torch.library.custom_op("poise::sample_levels", mutates_args=())
def sample_levels(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute ``deformable_sampling.sample_levels``; ``shapes`` are height, width, height, …, and the rest float32."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    batch, queries, heads = weights.shape[:3]
    output = torch.zeros(batch, queries, heads * value.shape[3], device=value.device)
    _each_level(_forward, (value, locations, weights, output), shapes, value, weights)
    return output


@torch.library.custom_op("poise::sample_levels_backward", mutates_args=())
def sample_levels_backward(
    value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of value, locations and weights."""
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    gradient = gradient.contiguous()
    found = (torch.zeros_like(value, dtype=torch.float32), torch.empty_like(locations), torch.empty_like(weights))
    _each_level(_backward, (value, locations, weights, gradient, *found), shapes, value, weights)
    return found[0].to(value.dtype, copy=False), found[1], found[2]


def _each_level(kernel: Any, tensors: Sequence[Tensor], shapes: Sequence[int], value: Tensor, weights: Tensor) -> None:
    """Launch a kernel on every level."""
    batch, queries, heads, levels, points = weights.shape
    tokens, depth = value.shape[1], value.shape[3]
    width = triton.next_power_of_2(depth)
    block = max(1, 1024 // width)
    grid = (triton.cdiv(queries, block), batch * heads)
    start = 0
    with torch.cuda.device_of(value):
        for level, shape in enumerate(zip(shapes[::2], shapes[1::2], strict=True)):
            sizes = (tokens, queries, heads, depth, levels * points, level * points, *shape, start)
            kernel[grid](*tensors, *sizes, POINTS=points, BLOCK=block, DEPTH=width)
            start += shape[0] * shape[1]


@sample_levels.register_fake
def _(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(*weights.shape[:2], value.shape[2] * value.shape[3], dtype=torch.float32)


@sample_levels_backward.register_fake
def _(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, gradient: Tensor) -> Any:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (value, locations, weights))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward_of_op(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    found = torch.ops.poise.sample_levels_backward(value, ctx.shapes, locations, weights, gradient)
    return found[0], None, found[1], found[2]


sample_levels.register_autograd(_backward_of_op, setup_context=_save_for_backward)
