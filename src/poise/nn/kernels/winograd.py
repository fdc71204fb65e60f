"""Winograd convolution F(4x4,3x3) for CPUs, forward and backward (Winograd 1980; Lavin and Gray 2016).

A 4x4 tile of the output takes 144 multiplications for each pair of channels; in the transformed domain it takes 36, one
matrix product each. Tiles are independent, so all levels of a pyramid share the 36 products. The error in float32 is
two to three times that of the direct sum, about 2.5e-6 of the norm of the result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_BUFFER = 2**24  # floats; larger buffers are freed after the call


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


TILE = _matrix(  # (6,6) transform of 6 inputs
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
).float()  # fmt: skip
KERNEL = _matrix(  # (6,3) transform of 3 weights
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
KERNEL = torch.kron(KERNEL, KERNEL).float()  # (36,9) both axes
RESULT = _matrix([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).float()  # (4,6)
BIAS = 7  # the product that enters each of the 16 outputs once: adding the bias there adds it to all


@dataclass(frozen=True)
class WinogradTiles:
    """The 4x4 output tiles of a (B,C,H,W) map: R rows and K columns of tiles, T = B*R*K in all."""

    batch: int
    height: int
    width: int

    @staticmethod
    def of(level: Tensor) -> WinogradTiles:
        return WinogradTiles(level.shape[0], level.shape[2], level.shape[3])

    @property
    def rows(self) -> int:
        return -(-self.height // 4)

    @property
    def columns(self) -> int:
        return -(-self.width // 4)

    @property
    def tiles(self) -> int:
        return self.batch * self.rows * self.columns

    def gather_inputs(self, level: Tensor, tiles: Tensor) -> None:
        """Write the 6x6 input of every tile into ``tiles`` (36,T,C); cells beyond the map are 0."""
        canvas = self._canvas(level)
        canvas[:, 1 : self.height + 1, 1 : self.width + 1] = level.permute(0, 2, 3, 1)
        image, row, column, _ = canvas.stride()
        overlapping = canvas.as_strided(
            (6, 6, *self._grid(level.shape[1])), (row, column, image, 4 * row, 4 * column, 1)
        )
        self._split(tiles, 6).copy_(overlapping)

    def scatter_inputs(self, tiles: Tensor) -> Tensor:
        """Return the adjoint of ``gather_inputs``: (B,C,H,W), the sum of tiles (36,T,C) where they overlap."""
        parts = self._split(tiles, 6).permute(2, 3, 0, 4, 1, 5)  # (B,R,6,K,6,C)
        canvas = self._canvas(tiles.transpose(0, 1))
        cells = canvas.view(self.batch, self.rows + 1, 4, self.columns + 1, 4, -1)
        cells[:, :-1, :, :-1] = parts[:, :, :4, :, :4]
        cells[:, 1:, :2, :-1] += parts[:, :, 4:, :, :4]
        cells[:, :-1, :, 1:, :2] += parts[:, :, :4, :, 4:]
        cells[:, 1:, :2, 1:, :2] += parts[:, :, 4:, :, 4:]
        return canvas[:, 1 : self.height + 1, 1 : self.width + 1].permute(0, 3, 1, 2)

    def gather_outputs(self, level: Tensor, tiles: Tensor) -> None:
        """Write every 4x4 tile into ``tiles`` (16,T,C); cells beyond the map are 0."""
        canvas = level.permute(0, 2, 3, 1)
        if self.height % 4 or self.width % 4:
            canvas = self._canvas(level)
            canvas[:, : self.height, : self.width] = level.permute(0, 2, 3, 1)
        parts = canvas[:, : 4 * self.rows, : 4 * self.columns].unflatten(2, (-1, 4)).unflatten(1, (-1, 4))
        self._split(tiles, 4).copy_(parts.permute(2, 4, 0, 1, 3, 5))

    def scatter_outputs(self, tiles: Tensor) -> Tensor:
        """Return the adjoint of ``gather_outputs``: (B,C,H,W) of tiles (16,T,C), in channels-last memory."""
        shape = (self.batch, tiles.shape[2], self.height, self.width)
        level = torch.empty(shape, memory_format=torch.channels_last)  # a view could not be modified in place
        inner = level.permute(0, 2, 3, 1)
        parts = self._split(tiles, 4).permute(2, 3, 0, 4, 1, 5)  # (B,R,4,K,4,C)
        if self.height % 4 or self.width % 4:
            inner.copy_(parts.reshape(self.batch, 4 * self.rows, -1, shape[1])[:, : self.height, : self.width])
        else:
            inner.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).copy_(parts)
        return level

    def _grid(self, channels: int) -> tuple[int, int, int, int]:
        return self.batch, self.rows, self.columns, channels

    def _split(self, tiles: Tensor, side: int) -> Tensor:
        """View (S*S,T,C) as (S,S,B,R,K,C)."""
        return tiles.unflatten(0, (side, side)).unflatten(2, (self.batch, self.rows, self.columns))

    def _canvas(self, like: Tensor) -> Tensor:
        """Return zeros (B,4R+4,4K+4,C), one tile more along each axis; C and dtype are those of ``like`` (·,C,...)."""
        channels = like.shape[1] if like.ndim == 4 else like.shape[2]
        return like.new_zeros(self.batch, 4 * self.rows + 4, 4 * self.columns + 4, channels)


class _Buffers(threading.local):
    """Three scratch buffers that are reused by later calls: page faults would cost as much as the transforms."""

    def __init__(self) -> None:
        self.memory = [torch.empty(0)] * 3

    def __call__(self, which: int, *shape: int) -> Tensor:
        """Return an uninitialized tensor of ``shape`` in buffer ``which``."""
        size = math.prod(shape)
        if size > MAX_BUFFER:
            return torch.empty(shape, dtype=torch.float32, device="cpu")
        if len(self.memory[which]) < size:
            with torch.inference_mode(False):
                self.memory[which] = torch.empty(size, dtype=torch.float32, device="cpu")
        return self.memory[which][:size].view(shape)


buffer = _Buffers()


def _transform(axis: Tensor, tiles: Tensor, spare: int, out: Tensor) -> Tensor:
    """Multiply tiles (S*S,T,C) by ``axis`` (Z,S) along both axes into ``out`` (Z*Z,T,C), by way of buffer ``spare``."""
    after, before = axis.shape
    rows = buffer(spare, after, before, out[0].numel())
    torch.mm(axis, tiles.view(before, -1), out=rows.view(after, -1))
    torch.bmm(axis.expand(after, -1, -1), rows, out=out.view(after, after, -1))
    return out


def _kernels(weight: Tensor) -> Tensor:
    """Transform weights (C',C,3,3) to (36,C',C), in buffer 2."""
    outputs, inputs = weight.shape[:2]
    kernels = buffer(2, 36, outputs, inputs)
    torch.mm(KERNEL, weight.reshape(-1, 9).T, out=kernels.flatten(1))
    return kernels


class _Convolution(torch.autograd.Function):
    """3x3 convolution of stride 1 and padding 1; forward and backward are 36 matrix products each."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        outputs, inputs = weight.shape[:2]
        ctx.layouts = [WinogradTiles.of(level) for level in maps]
        ctx.counts = [layout.tiles for layout in ctx.layouts]
        total = sum(ctx.counts)
        raw = buffer(0, 36, total, inputs)
        for layout, level, part in zip(ctx.layouts, maps, raw.split(ctx.counts, 1), strict=True):
            layout.gather_inputs(level, part)
        tiles = _transform(TILE, raw, 1, torch.empty_like(raw))
        products = torch.bmm(tiles, _kernels(weight).transpose(1, 2), out=buffer(0, 36, total, outputs))
        if bias is not None:
            products[BIAS] += bias
        ctx.save_for_backward(weight, tiles)
        results = _transform(RESULT, products, 1, buffer(0, 16, total, outputs))
        parts = zip(ctx.layouts, results.split(ctx.counts, 1), strict=True)
        return tuple(layout.scatter_outputs(part) for layout, part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        original, tiles = ctx.saved_tensors
        outputs, inputs = original.shape[:2]
        total = sum(ctx.counts)
        results = buffer(0, 16, total, outputs)
        for layout, gradient, part in zip(ctx.layouts, gradients, results.split(ctx.counts, 1), strict=True):
            layout.gather_outputs(gradient, part)
        products = _transform(RESULT.T, results, 1, buffer(0, 36, total, outputs))
        weight = bias = None
        maps: list[Tensor | None] = [None] * len(gradients)
        if ctx.needs_input_grad[0]:
            kernels = torch.bmm(products.transpose(1, 2), tiles, out=buffer(1, 36, outputs, inputs))
            weight = (KERNEL.T @ kernels.flatten(1)).view(3, 3, outputs, inputs).permute(2, 3, 0, 1)
        if ctx.needs_input_grad[1]:
            bias = products[BIAS].sum(0)
        if any(ctx.needs_input_grad[2:]):
            back = torch.bmm(products, _kernels(original), out=buffer(1, 36, total, inputs))
            parts = _transform(TILE.T, back, 0, back).split(ctx.counts, 1)
            maps = [layout.scatter_inputs(part) for layout, part in zip(ctx.layouts, parts, strict=True)]
        return weight, bias, *maps


def conv3x3(levels: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Convolve maps (B,C,H_l,W_l) float32 on a CPU with one weight (C',C,3,3); stride 1, padding 1."""
    return list(_Convolution.apply(weight, bias, *levels))
