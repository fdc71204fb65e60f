"""Sampling of deformable attention against the pure PyTorch form of transformers, forward alone and with backward.

    python benchmarks/deformable_attention.py [--height 800] [--width 1333] [--batch 1] [--queries 300 900]
                                              [--threads 1] [--clock cpu] [--device cpu] [--autocast bfloat16]
                                              [--json FILE]

Four levels, 8 heads of 32 channels and 4 points, as in Deformable DETR's encoder (every cell is a query and looks
around itself) and decoder (``--queries``, each around a point of its own). Both sides get the same tensors, turn by
turn. transformers' is ``MultiScaleDeformableAttention``: ``grid_sample`` a level, then a weighted sum of all samples.

``--device cuda`` measures the Triton kernel, or poise's PyTorch form where ``POISE_TRITON`` is 0, and waits
for the device before it reads the clock; with ``--autocast`` values are in that type, as a linear layer leaves them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import record
import torch
from assignment import Call, times_of
from torch import Tensor

from poise.nn.kernels.deformable_sampling import has_kernel, sample_levels

HEADS, DEPTH, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)
REACH = 3.0  # cells of each level, one standard deviation
Shapes = tuple[tuple[int, int], ...]


def theirs(shapes: Shapes, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    module = MultiScaleDeformableAttention()
    sizes = torch.tensor(shapes, device=device)
    starts = torch.cat((sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]))
    return lambda value, locations, weights: module(value, sizes, list(shapes), starts, locations, weights, 64)


def centers(shapes: Shapes) -> Tensor:
    """x, y of every cell in shares of the image, (N,2)."""
    grids = [
        torch.cartesian_prod((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width)
        for height, width in shapes
    ]
    return torch.cat(grids).flip(1)


def inputs(shapes: Shapes, queries: int, options: argparse.Namespace) -> list[Tensor]:
    """Value, locations, weights; 0 queries: every cell."""
    generator = torch.Generator().manual_seed(0)
    references = torch.rand(queries, 2, generator=generator) if queries else centers(shapes)
    form = (options.batch, len(references), HEADS, len(STRIDES), POINTS)
    reach = REACH / torch.tensor([[width, height] for height, width in shapes])[:, None]
    locations = references[:, None, None, None] + torch.randn(*form, 2, generator=generator) * reach
    cells = sum(height * width for height, width in shapes)
    value = torch.randn(options.batch, cells, HEADS, DEPTH, generator=generator)
    weights = torch.randn(form, generator=generator).flatten(3).softmax(-1).reshape(form)
    kind = getattr(torch, options.autocast or "float32")
    return [value.to(options.device, kind), locations.to(options.device), weights.to(options.device)]


def passes(function: Callable[..., Tensor], tensors: list[Tensor], options: argparse.Namespace) -> dict[str, Call]:
    """The forward pass without a graph, and with the gradients of all three tensors."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    kind = getattr(torch, options.autocast or "bfloat16")

    def forward() -> Tensor:
        with torch.autocast(options.device, kind, enabled=options.autocast is not None):
            return function(*leaves)

    gradient = torch.linspace(-1, 1, DEPTH * HEADS, device=options.device)

    def both() -> tuple[Tensor, ...]:
        found = forward()
        return (found, *torch.autograd.grad(found, leaves, gradient.to(found.dtype).expand_as(found)))

    return {"forward": torch.no_grad()(forward), "forward and backward": both}


def agree(mine: tuple[Tensor, ...], other: tuple[Tensor, ...], rounding: float) -> None:
    """Every number within the rounding of the largest."""
    for found, wanted in zip(mine, other, strict=True):
        largest = float(wanted.detach().abs().max())
        torch.testing.assert_close(found.float(), wanted.float(), rtol=rounding, atol=rounding * largest)


def measured(case: str, tensors: list[Tensor], shapes: Shapes, options: argparse.Namespace) -> list[record.Row]:
    """Both sides, turn by turn."""
    mine = passes(lambda value, locations, weights: sample_levels(value, shapes, locations, weights), tensors, options)
    other = passes(theirs(shapes, options.device), tensors, options)
    kind = "forward and backward"
    agree(mine[kind](), other[kind](), 1e-3 if options.autocast is None else 3e-2)
    clock = record.CLOCKS[options.clock]

    def synchronized() -> float:
        if options.device == "cuda":
            torch.cuda.synchronize()
        return clock()

    rows = []
    for kind in mine:
        seconds = times_of({"poise": mine[kind], "transformers": other[kind]}, synchronized, options.budget)
        own, against = seconds["poise"], seconds["transformers"]
        row = {"case": f"{case}, {kind}", "poise_ms": 1000 * own, "transformers time": 1000 * against}
        rows.append(row | {"transformers_ratio": against / own})
        print(f"| {case} | {kind} | {1000 * own:.1f} | {1000 * against:.1f} | {against / own:.2f} |", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--queries", type=int, nargs="*", default=[300, 900])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=record.CLOCKS, default="cpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--autocast", choices=("bfloat16", "float16"))
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for the turns of a row, at least 3 turns")
    record.add_json(parser)
    options = parser.parse_args()
    if options.device == "cuda":
        options.clock = "wall"
    torch.set_num_threads(options.threads)
    shapes = tuple((-(-options.height // stride), -(-options.width // stride)) for stride in STRIDES)
    form = "Triton kernel" if options.device == "cuda" and has_kernel() else "embedding bag"
    print(
        f"{record.headline()}; {options.threads} threads, {options.clock} time, batch {options.batch}, poise: {form}\n"
    )
    print("| case | pass | poise, ms | transformers, ms | ratio |\n|---|---|---:|---:|---:|")
    rows = []
    for queries in record.track((*options.queries, 0)):
        case = f"decoder, {queries} queries" if queries else f"encoder, {sum(h * w for h, w in shapes)} queries"
        rows += measured(case, inputs(shapes, queries, options), shapes, options)
    record.write(options.json, "deformable_attention", vars(options) | {"form": form}, rows)


if __name__ == "__main__":
    main()
