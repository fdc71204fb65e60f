"""Weighted sums of bilinear samples on CPUs, with an exact backward pass that stores no sample.

``SumOfSamples`` runs over chunks of bags whose temporary tensors stay in the cache. A backward pass through
``embedding_bag`` takes about four times as long: it sorts all cells of all samples together and adds them one by one.

- The gradients of positions and weights need the inner product of every cell's value and the gradient of its bag, which
  ``torch.sparse.sampled_addmm`` computes without storing the cells.
- For the gradient of the values, the cells of a chunk are sorted. What each cell receives is then a bag itself: a
  weighted sum of gradients of the chunk.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Shape = tuple[int, int]  # height and width of a level
Side = tuple[Tensor, Tensor, Tensor]  # index of a cell along one axis, its weight, whether it is inside the map
CHUNK = 2**17  # samples that are processed together


def on_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor (n,), filled on the device: a copy from the host would synchronize."""
    return torch.stack([torch.full((), number, dtype=dtype, device=device) for number in numbers])


def neighbors(position: Tensor, cells: Tensor) -> tuple[Side, Side]:
    """Return the two cells around each position along one axis, int32, their weights, 0 beyond the map, and whether
    they are inside.
    """
    low = position.detach().floor()
    fraction, cell = position - low, low.int()
    found: list[Side] = []
    for index, weight in ((cell, 1 - fraction), (cell + 1, fraction)):
        nearest = index.minimum(cells - 1).clamp(min=0)
        inside = nearest == index
        found.append((nearest, torch.where(inside, weight, 0.0), inside))
    return found[0], found[1]


class SumOfSamples(torch.autograd.Function):
    """Weighted sums of bilinear samples of values (B,N,H,D): bags (B*Q*H,D) of x, y, weights (B*Q*H,L,P) in cells."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: tuple[Shape, ...], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        ctx.shapes = shapes
        ctx.save_for_backward(value, x, y, weights)
        values, sums = value.flatten(0, 2), value.new_empty(len(x), value.shape[3])
        for bags, cells, row, column in _chunks(value, shapes, x, y):
            cell_weights = _cell_weights(row, column, weights[bags])
            sums[bags] = functional.embedding_bag(cells, values, mode="sum", per_sample_weights=cell_weights)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, x, y, weights = ctx.saved_tensors
        gradient, values = gradient.contiguous(), value.flatten(0, 2)
        for_values = torch.zeros_like(values) if ctx.needs_input_grad[0] else None
        for_samples = tuple(torch.empty_like(weights) for _ in range(3)) if any(ctx.needs_input_grad[2:]) else None
        for bags, cells, row, column in _chunks(value, ctx.shapes, x, y):
            part = gradient[bags]
            if for_values is not None:
                _add_to_cells(for_values, cells, part, _cell_weights(row, column, weights[bags]))
            if for_samples is not None:
                products = _inner_products(cells, part, values).view(len(part), 2, 2, *x.shape[1:])
                for total, found in zip(for_samples, _of_samples(products, row, column, weights[bags]), strict=True):
                    total[bags] = found
        for_value = None if for_values is None else for_values.view_as(value)
        return for_value, None, *(for_samples or (None, None, None))


def _chunks(
    value: Tensor, shapes: tuple[Shape, ...], x: Tensor, y: Tensor
) -> Iterator[tuple[slice, Tensor, tuple[Side, Side], tuple[Side, Side]]]:
    """Yield slices of m bags, the rows of their 4*L*P cells in the values (B*N*H,D), and ``neighbors`` of y and x."""
    batch, tokens, heads, _ = value.shape
    starts = [sum(height * width for height, width in shapes[:level]) * heads for level in range(len(shapes))]
    columns_of_shapes = (*zip(*shapes, strict=True), starts)
    height, width, start = (on_device(numbers, torch.int32, x.device)[:, None] for numbers in columns_of_shapes)
    image = torch.arange(batch, dtype=torch.int32)[:, None, None] * (tokens * heads)
    first = image + torch.arange(heads, dtype=torch.int32)
    first = first.expand(-1, len(x) // (batch * heads), -1).reshape(-1, 1, 1)  # bags are ordered by image, query, head
    size = max(1, CHUNK // (x.shape[1] * x.shape[2]))
    for begin in range(0, len(x), size):
        bags = slice(begin, begin + size)
        row, column = neighbors(y[bags], height), neighbors(x[bags], width)
        rows = torch.stack([index for index, _, _ in row], 1) * (width * heads) + (first[bags] + start)[:, None]
        columns = torch.stack([index for index, _, _ in column], 1) * heads
        yield bags, (rows[:, :, None] + columns[:, None]).flatten(1), row, column


def _cell_weights(row: tuple[Side, Side], column: tuple[Side, Side], weights: Tensor) -> Tensor:
    """Return the weights of cells (m,4*L*P) in the order of ``_chunks``."""
    by_row = torch.stack([weight for _, weight, _ in row], 1) * weights[:, None]
    by_column = torch.stack([weight for _, weight, _ in column], 1)
    return (by_row[:, :, None] * by_column[:, None]).flatten(1)


def _add_to_cells(total: Tensor, cells: Tensor, gradient: Tensor, weights: Tensor) -> None:
    """Add the gradients of bags (m,D) to the rows ``cells`` (m,K) of ``total``, times weights (m,K)."""
    ordered, order = cells.flatten().sort()
    rows, counts = torch.unique_consecutive(ordered, return_counts=True)
    bag = torch.div(order, cells.shape[1], rounding_mode="floor")
    starts, weights = counts.cumsum(0) - counts, weights.flatten()[order]
    total.index_add_(0, rows, functional.embedding_bag(bag, gradient, starts, mode="sum", per_sample_weights=weights))


def _inner_products(cells: Tensor, gradient: Tensor, values: Tensor) -> Tensor:
    """Return the inner products of the gradient of each bag (m,D) and the rows ``cells`` (m,K) of the values, (m,K)."""
    if cells.shape[1] > len(values):  # small maps: a sparse matrix cannot have more elements than a dense one
        return (gradient @ values.T).gather(1, cells.long())
    _silence_sparse()
    ends = torch.arange(0, cells.numel() + 1, cells.shape[1], dtype=cells.dtype)
    shape, zeros = (len(cells), len(values)), gradient.new_zeros(cells.numel())
    pattern = torch.sparse_csr_tensor(ends, cells.flatten(), zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, gradient, values.T, beta=0.0).values().view(cells.shape)


@functools.cache
def _silence_sparse() -> None:
    """Create a first compressed tensor: PyTorch warns once in a process that they are a beta version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        torch.zeros(1, 1).to_sparse_csr()


def _of_samples(
    products: Tensor, row: tuple[Side, Side], column: tuple[Side, Side], weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, y and weights (m,L,P), given ``products`` of cells (m,2,2,L,P)."""
    (_, top, has_top), (_, bottom, has_bottom) = row
    (_, left, has_left), (_, right, has_right) = column
    above, below = products[:, 0, 0] * left, products[:, 1, 0] * left
    above, below = above.addcmul_(products[:, 0, 1], right), below.addcmul_(products[:, 1, 1], right)
    at_left, at_right = (products[:, 0] * top[:, None]).addcmul_(products[:, 1], bottom[:, None]).unbind(1)
    x = (at_right * has_right).sub_(at_left * has_left).mul_(weights)
    y = (below * has_bottom).sub_(above * has_top).mul_(weights)
    return x, y, (above * top).addcmul_(below, bottom)
