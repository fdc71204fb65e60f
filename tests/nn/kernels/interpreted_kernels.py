"""Run by ``test_deformable_triton.py`` in a process of its own, where Triton interprets its kernels on the CPU.

Every case compares the kernels with the PyTorch form, forward and backward.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from poise.nn.kernels import deformable_triton
from poise.nn.kernels.deformable_sampling import sample_in_bags

Shapes = tuple[tuple[int, int], ...]
SHAPES: Shapes = ((5, 7), (3, 4))


def inputs(shapes: Shapes, heads: int, depth: int, queries: int, points: int = 2, batch: int = 2) -> list[Tensor]:
    """Value, locations (a third of them beyond the map) and weights."""
    generator = torch.Generator().manual_seed(0)
    cells = sum(height * width for height, width in shapes)
    value = torch.randn(batch, cells, heads, depth, generator=generator)
    locations = torch.rand(batch, queries, heads, len(shapes), points, 2, generator=generator) * 1.6 - 0.3
    return [value, locations, torch.rand(batch, queries, heads, len(shapes), points, generator=generator)]


def by_kernel(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    flat = [length for shape in shapes for length in shape]
    return torch.ops.poise.sample_levels(value, flat, locations, weights)


def results(function: Callable[..., Tensor], shapes: Shapes, tensors: list[Tensor]) -> list[Tensor]:
    """What is found, and the gradients of all three."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    found = function(leaves[0], shapes, *leaves[1:])
    ask = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    return [found.detach(), *torch.autograd.grad(found, leaves, ask)]


def same(shapes: Shapes, tensors: list[Tensor], rtol: float = 1e-4, atol: float = 2e-5) -> None:
    exact = [tensors[0].float(), *tensors[1:]]
    mine, wanted = results(by_kernel, shapes, tensors), results(sample_in_bags, shapes, exact)
    assert mine[0].dtype == torch.float32
    assert [gradient.dtype for gradient in mine[1:]] == [tensor.dtype for tensor in tensors]
    for found, expected in zip(mine, wanted, strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found.float(), expected, rtol=rtol, atol=atol)


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", "Triton reads this when it is imported"
    # more queries than a program takes; a head's depth that fills a program's vectors
    same(SHAPES, inputs(SHAPES, heads=2, depth=64, queries=17, points=1))
    # one that does not, and a level without cells
    hollow = ((4, 3), (0, 6), (1, 1))
    same(hollow, inputs(hollow, heads=1, depth=5, queries=2))
    # sums are float32; only the value's gradient is rounded to the value's type
    for dtype, rounding in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        value, *others = inputs(((5, 7),), heads=1, depth=16, queries=5, points=1, batch=1)
        same(((5, 7),), [value.to(dtype), *others], rtol=rounding, atol=rounding / 10)
    # at the very cells' centers, where the derivative jumps, and where nothing can be found
    value, locations, weights = inputs(((4, 8),), heads=1, depth=8, queries=4)
    locations = (locations * 32).round() / 32 + 1 / 16
    locations[0, 0], locations[0, 1, ..., 0], locations[1, 2] = float("nan"), float("inf"), -1e30
    same(((4, 8),), [value, locations, weights])
    assert not by_kernel(value, ((4, 8),), locations, weights)[0, :2].any()
    # not contiguous, and what torch.compile needs to know of an operator
    value, locations, weights = inputs(((2, 3),), heads=2, depth=4, queries=2, points=1)
    strided = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (value, locations, weights)]
    same(((2, 3),), strided)
    leaves = [tensor.detach().requires_grad_() for tensor in strided]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(deformable_triton.sample_levels, (leaves[0], [2, 3], *leaves[1:]), test_utils=checks)
    print("all equal")


if __name__ == "__main__":
    main()
