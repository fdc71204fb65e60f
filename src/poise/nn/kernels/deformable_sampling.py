"""What multi-scale deformable attention finds: weighted sums of bilinear samples (Zhu et al. 2021, eq. 3).

A bilinear sample is a weighted sum of four cells, so a weighted sum of samples is one *bag* of vectors: PyTorch's
``embedding_bag`` with a weight for each of its members. No sample is ever written down. On CUDA devices the Triton
kernel of ``deformable_triton.py`` takes its place.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, int]  # height and width of a level


def sample_levels(value: Tensor, shapes: tuple[Shape, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples, zero outside the maps and where a location is not finite, in float32.

    On CUDA devices a Triton kernel, unless ``has_kernel`` is false or PyTorch was told to be deterministic (the
    kernel's backward pass adds in any order); elsewhere ``sample_in_bags``.

    Args:
        value: (B,N,H,D) tokens of all levels, a vector for each of H heads.
        shapes: height and width of each level.
        locations: (B,Q,H,L,P,2) x, y, where [0,1] spans the map from edge to edge.
        weights: (B,Q,H,L,P).

    Returns:
        (B,Q,H*D).
    """
    with torch.autocast(value.device.type, enabled=False):
        if value.is_cuda and has_kernel() and not torch.are_deterministic_algorithms_enabled():
            flat = [length for shape in shapes for length in shape]
            return torch.ops.poise.sample_levels(value, flat, locations.float(), weights.float())
        return sample_in_bags(value.float(), shapes, locations.float(), weights.float())


@torch.compiler.assume_constant_result
def has_kernel() -> bool:
    """Whether CUDA devices use the Triton kernel.

    They do where Triton is installed and every GPU can run it (compute capability 7), unless the environment variable
    ``POISE_TRITON`` is 0. Read once.
    """
    return _load_kernel()


@functools.cache
def _load_kernel() -> bool:
    if os.environ.get("POISE_TRITON") == "0" or find_spec("triton") is None:
        return False
    if any(torch.cuda.get_device_capability(gpu) < (7, 0) for gpu in range(torch.cuda.device_count())):
        return False
    importlib.import_module("poise.nn.kernels.deformable_triton")
    return True


def sample_in_bags(value: Tensor, shapes: tuple[Shape, ...], locations: Tensor, weights: Tensor) -> Tensor:
    """``sample_levels`` in plain PyTorch; all tensors in one floating type."""
    filled = [level for level, (height, width) in enumerate(shapes) if height and width]
    if len(filled) < len(shapes):
        seen = tuple(shapes[level] for level in filled)
        return sample_in_bags(value, seen, locations[:, :, :, filled], weights[:, :, :, filled])
    batch, tokens, heads, _ = value.shape
    device = value.device
    of_levels = (*zip(*shapes, strict=True), _starts(shapes))
    height, width, start = (on_device(numbers, torch.int32, device)[:, None] for numbers in of_levels)  # (L,1) each
    image = torch.arange(batch, device=device, dtype=torch.int32)[:, None, None] * tokens
    vector = (image * heads + torch.arange(heads, device=device, dtype=torch.int32))[..., None, None]
    columns = [(vector + x * heads, share) for x, share in _neighbors(locations[..., 0], width)]
    rows = [((start + y * width) * heads, share * weights) for y, share in _neighbors(locations[..., 1], height)]
    members = torch.stack([row + column for row, _ in rows for column, _ in columns], 3)  # (B,Q,H,4,L,P)
    shares = torch.stack([above * beside for _, above in rows for _, beside in columns], 3)
    bags = members.flatten(0, 2).flatten(1), shares.flatten(0, 2).flatten(1)
    found = functional.embedding_bag(bags[0], value.flatten(0, 2), mode="sum", per_sample_weights=bags[1])
    return found.reshape(batch, -1, heads * value.shape[3])


def on_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor (n,), filled in on the device: a copy of what the host made would be waited for."""
    return torch.stack([torch.full((), number, dtype=dtype, device=device) for number in numbers])


def _starts(shapes: tuple[Shape, ...]) -> list[int]:
    """The first token of each level."""
    starts = [0]
    for height, width in shapes[:-1]:
        starts.append(starts[-1] + height * width)
    return starts


def _neighbors(position: Tensor, cells: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two cells along one axis that a position lies between, with the share of each; no share beyond the map."""
    place = (position - 0.5 + 0.5) * cells - 0.5  # rounded as grid_sample does, with which models were published
    low = place.detach().floor()
    part, cell = place - low, low.int()
    found = []
    for index, share in ((cell, 1 - part), (cell + 1, part)):
        within = index.minimum(cells - 1).clamp(min=0)
        found.append((within, torch.where(within == index, share, 0.0)))
    return found
