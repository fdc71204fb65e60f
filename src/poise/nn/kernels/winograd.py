"""3x3 convolutions with fewer multiplications, for training on CPUs (Winograd 1980; Lavin and Gray 2016, F(4x4,3x3)).

A 4x4 tile of the output needs 144 multiplications a pair of channels; on the tiles' transforms it needs 36, one matrix
product for each. Tiles know nothing of one another, so that all levels of a pyramid share the 36 products. Compared
with the plain sum in float32 the error is two to three times as large, about 2.5e-6 of the result's norm.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

LEAST_TILES = 48  # where transforming the weights pays
LEAST_CHANNELS = (128, 64)  # of input and output: with fewer, moving the tiles takes as long as multiplying them
MOST_KEPT = 2**24  # floats: larger buffers are not kept from call to call


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


TILE = _matrix(  # (6,6): of 6 inputs
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
).float()  # fmt: skip
KERNEL = _matrix(  # (6,3): of 3 weights
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
KERNEL = torch.kron(KERNEL, KERNEL).float()  # (36,9): of both axes
RESULT = _matrix([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).float()  # (4,6)
EVEN = 7  # the product that counts once in each of the 16 outputs


@dataclass(frozen=True)
class Tiling:
    """How a (B,C,H,W) map is cut into tiles of 4x4."""

    batch: int
    height: int
    width: int

    @staticmethod
    def of(level: Tensor) -> Tiling:
        return Tiling(level.shape[0], level.shape[2], level.shape[3])

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
        """Fill (36,T,C) with every tile and the border of one that its outputs see, zeros outside."""
        canvas = self._canvas(level)
        canvas[:, 1 : self.height + 1, 1 : self.width + 1] = level.permute(0, 2, 3, 1)
        image, row, column, _ = canvas.stride()
        overlapping = canvas.as_strided(
            (6, 6, *self._grid(level.shape[1])), (row, column, image, 4 * row, 4 * column, 1)
        )
        self._apart(tiles, 6).copy_(overlapping)

    def scatter_inputs(self, tiles: Tensor) -> Tensor:
        """The adjoint: the map of (36,T,C), added up where tiles overlap."""
        parts = self._apart(tiles, 6).permute(2, 3, 0, 4, 1, 5)  # (B,R,6,K,6,C)
        canvas = self._canvas(tiles.transpose(0, 1))
        cells = canvas.view(self.batch, self.rows + 1, 4, self.columns + 1, 4, -1)
        cells[:, :-1, :, :-1] = parts[:, :, :4, :, :4]
        cells[:, 1:, :2, :-1] += parts[:, :, 4:, :, :4]
        cells[:, :-1, :, 1:, :2] += parts[:, :, :4, :, 4:]
        cells[:, 1:, :2, 1:, :2] += parts[:, :, 4:, :, 4:]
        return canvas[:, 1 : self.height + 1, 1 : self.width + 1].permute(0, 3, 1, 2)

    def gather_outputs(self, level: Tensor, tiles: Tensor) -> None:
        """Fill (16,T,C) with every tile, zeros beyond the map."""
        canvas = level.permute(0, 2, 3, 1)
        if self.height % 4 or self.width % 4:
            canvas = self._canvas(level)
            canvas[:, : self.height, : self.width] = level.permute(0, 2, 3, 1)
        parts = canvas[:, : 4 * self.rows, : 4 * self.columns].unflatten(2, (-1, 4)).unflatten(1, (-1, 4))
        self._apart(tiles, 4).copy_(parts.permute(2, 4, 0, 1, 3, 5))

    def scatter_outputs(self, tiles: Tensor) -> Tensor:
        """The adjoint: the map of (16,T,C), channels last in memory."""
        shape = (self.batch, tiles.shape[2], self.height, self.width)
        level = torch.empty(shape, memory_format=torch.channels_last)  # no view, so that it may be written to
        inner = level.permute(0, 2, 3, 1)
        parts = self._apart(tiles, 4).permute(2, 3, 0, 4, 1, 5)  # (B,R,4,K,4,C)
        if self.height % 4 or self.width % 4:
            inner.copy_(parts.reshape(self.batch, 4 * self.rows, -1, shape[1])[:, : self.height, : self.width])
        else:
            inner.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).copy_(parts)
        return level

    def _grid(self, channels: int) -> tuple[int, int, int, int]:
        return self.batch, self.rows, self.columns, channels

    def _apart(self, tiles: Tensor, side: int) -> Tensor:
        """(S*S,T,C) as (S,S,B,R,K,C)."""
        return tiles.unflatten(0, (side, side)).unflatten(2, (self.batch, self.rows, self.columns))

    def _canvas(self, like: Tensor) -> Tensor:
        """Zeros for whole tiles and one more a row and column, (B,4R+4,4K+4,C); channels of ``like`` (·,C,...)."""
        channels = like.shape[1] if like.ndim == 4 else like.shape[2]
        return like.new_zeros(self.batch, 4 * self.rows + 4, 4 * self.columns + 4, channels)


class _Buffers(threading.local):
    """Memory of what lives within one call, kept for the next: fresh pages cost as much as the transforms do."""

    def __init__(self) -> None:
        self.kept = [torch.empty(0)] * 3

    def __call__(self, which: int, *shape: int) -> Tensor:
        """The first floats of one of the three, of any value, as ``shape``."""
        size = math.prod(shape)
        if size > MOST_KEPT:
            return torch.empty(shape, dtype=torch.float32, device="cpu")
        if len(self.kept[which]) < size:
            with torch.inference_mode(False):
                self.kept[which] = torch.empty(size, dtype=torch.float32, device="cpu")
        return self.kept[which][:size].view(shape)


buffer = _Buffers()


def _transform(axis: Tensor, tiles: Tensor, spare: int, out: Tensor) -> Tensor:
    """Tiles (S*S,T,C) by (Z,S) along both axes to ``out`` (Z*Z,T,C); what is between goes to the buffer ``spare``."""
    after, before = axis.shape
    rows = buffer(spare, after, before, out[0].numel())
    torch.mm(axis, tiles.view(before, -1), out=rows.view(after, -1))
    torch.bmm(axis.expand(after, -1, -1), rows, out=out.view(after, after, -1))
    return out


def _kernels(weight: Tensor) -> Tensor:
    """(36,C',C) of (C',C,3,3), in the third buffer."""
    outputs, inputs = weight.shape[:2]
    kernels = buffer(2, 36, outputs, inputs)
    torch.mm(KERNEL, weight.reshape(-1, 9).T, out=kernels.flatten(1))
    return kernels


class _Convolution(torch.autograd.Function):
    """Maps to maps of one size, (C',C,3,3) weights, zeros around; both directions as 36 matrix products."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *maps: Tensor) -> tuple[Tensor, ...]:
        outputs, inputs = weight.shape[:2]
        ctx.tilings = [Tiling.of(level) for level in maps]
        ctx.counts = [tiling.tiles for tiling in ctx.tilings]
        total = sum(ctx.counts)
        raw = buffer(0, 36, total, inputs)
        for tiling, level, part in zip(ctx.tilings, maps, raw.split(ctx.counts, 1), strict=True):
            tiling.gather_inputs(level, part)
        tiles = _transform(TILE, raw, 1, torch.empty_like(raw))
        products = torch.bmm(tiles, _kernels(weight).transpose(1, 2), out=buffer(0, 36, total, outputs))
        if bias is not None:
            products[EVEN] += bias
        ctx.save_for_backward(weight, tiles)
        results = _transform(RESULT, products, 1, buffer(0, 16, total, outputs))
        parts = zip(ctx.tilings, results.split(ctx.counts, 1), strict=True)
        return tuple(tiling.scatter_outputs(part) for tiling, part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        original, tiles = ctx.saved_tensors
        outputs, inputs = original.shape[:2]
        total = sum(ctx.counts)
        results = buffer(0, 16, total, outputs)
        for tiling, gradient, part in zip(ctx.tilings, gradients, results.split(ctx.counts, 1), strict=True):
            tiling.gather_outputs(gradient, part)
        products = _transform(RESULT.T, results, 1, buffer(0, 36, total, outputs))
        weight = bias = None
        maps: list[Tensor | None] = [None] * len(gradients)
        if ctx.needs_input_grad[0]:
            kernels = torch.bmm(products.transpose(1, 2), tiles, out=buffer(1, 36, outputs, inputs))
            weight = (KERNEL.T @ kernels.flatten(1)).view(3, 3, outputs, inputs).permute(2, 3, 0, 1)
        if ctx.needs_input_grad[1]:
            bias = products[EVEN].sum(0)
        if any(ctx.needs_input_grad[2:]):
            back = torch.bmm(products, _kernels(original), out=buffer(1, 36, total, inputs))
            parts = _transform(TILE.T, back, 0, back).split(ctx.counts, 1)
            maps = [tiling.scatter_inputs(part) for tiling, part in zip(ctx.tilings, parts, strict=True)]
        return weight, bias, *maps


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the size, of one map or of several with the same weights.

    In eager float32 on a CPU, where the maps are large and have many channels, it multiplies tiles (this module's
    text); elsewhere, and in what is compiled or exported, it is torch's own.
    """

    def __init__(self, in_channels: int, channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, channels, 3, 1, 1, bias=bias)

    @overload
    def forward(self, maps: Tensor) -> Tensor: ...
    @overload
    def forward(self, maps: list[Tensor]) -> list[Tensor]: ...
    def forward(self, maps: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """(B,C,H,W) to (B,C',H,W), or a list of such to a list."""
        levels = [maps] if isinstance(maps, Tensor) else list(maps)
        if multiplies_tiles(levels, self.weight):
            results = list(_Convolution.apply(self.weight, self.bias, *levels))
        else:
            results = [functional.conv2d(level, self.weight, self.bias, padding=1) for level in levels]
        return results[0] if isinstance(maps, Tensor) else results


def multiplies_tiles(levels: Sequence[Tensor], weight: Tensor) -> bool:
    """Whether tiles are the faster way to convolve ``levels`` (B,C,H,W), and one that can be gone here."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if weight.shape[1] < LEAST_CHANNELS[0] or weight.shape[0] < LEAST_CHANNELS[1]:
        return False
    plain = all(value.device.type == "cpu" and value.dtype == torch.float32 for value in (*levels, weight))
    return plain and sum(Tiling.of(level).tiles for level in levels) >= LEAST_TILES
