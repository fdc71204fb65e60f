"""Deformable attention against transformers' form of it, and Hungarian matching in one batch against SciPy in a loop.

    python benchmarks/deformable_attention.py [--size 480] [--batch 2] [--queries 300] [--threads 2] [--clock wall]
                                              [--device cpu] [--json FILE]

Sampling of four levels by 8 heads of 32 channels and 4 points, forward and backward, as the encoder does (every cell is
a query) and as the decoder does (``--queries``); both sides get the same tensors, turn by turn. transformers' is its
pure PyTorch form (``grid_sample`` a level, then a weighted sum of all samples). The matching is of 6 decoder layers,
16 images and 900 queries with 7 objects an image on average: poise's whole assigner in one call; the loop computes the
costs of each layer and image by itself and hands each to SciPy.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import assignment
import record
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from poise.assign.hungarian import Hungarian
from poise.boxes import to_shares
from poise.nn.deformable_attention import sample_levels
from poise.structures import GroundTruth, Priors, QueryPredictions

HEADS, WIDTH, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)
LAYERS, IMAGES, QUERIES = 6, 16, 900
Call = Callable[[], Any]


def theirs(shapes: tuple[tuple[int, int], ...]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    module = MultiScaleDeformableAttention()
    sizes = torch.tensor(shapes)
    starts = torch.cat((sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]))
    return lambda value, places, weights: module(value, sizes, list(shapes), starts, places, weights, 64)


def sampling(options: argparse.Namespace, queries: int) -> dict[str, Call]:
    """Forward and backward of both, on leaves of their own graph."""
    shapes = tuple((-(-options.size // stride), -(-options.size // stride)) for stride in STRIDES)
    cells = sum(height * width for height, width in shapes)
    count, generator = queries or cells, torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(options.batch, *shape, generator=generator).to(options.device)

    value, places = random(cells, HEADS, WIDTH), random(count, HEADS, len(STRIDES), POINTS, 2)
    weights = random(count, HEADS, len(STRIDES) * POINTS).softmax(-1).unflatten(-1, (len(STRIDES), POINTS))
    gradient = random(count, HEADS * WIDTH)
    leaves = [value.requires_grad_(), places.requires_grad_(), weights.detach().requires_grad_()]

    def both(function: Callable[..., Tensor]) -> Call:
        def call() -> tuple[Tensor, ...]:
            found = function(*leaves)
            return (found, *torch.autograd.grad(found, leaves, gradient))

        return call

    sides = {"poise": both(lambda value, places, weights: sample_levels(value, shapes, places, weights))}
    if importlib.util.find_spec("transformers"):
        sides["transformers"] = both(theirs(shapes))
        for mine, other in zip(sides["poise"](), sides["transformers"](), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    return sides


def matching() -> dict[str, Call]:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 14, (IMAGES,), generator=generator).tolist()
    whole = assignment.truth_of(IMAGES, max(counts))
    valid = whole.valid & (torch.arange(whole.valid.shape[1]) < torch.tensor(counts)[:, None])
    truth = GroundTruth(whole.boxes, whole.labels, valid, whole.crowd, whole.sizes).repeat(LAYERS)
    predictions = assignment.queries_of(LAYERS * IMAGES, QUERIES, truth)
    assigner = Hungarian()

    def loop() -> list[Any]:
        found = []
        for i in range(LAYERS * IMAGES):
            keep = truth.valid[i]
            boxes, sizes = truth.boxes[i : i + 1, keep], truth.sizes[i : i + 1]
            alone = GroundTruth(
                boxes, truth.labels[i : i + 1, keep], keep[keep][None], truth.crowd[i : i + 1, keep], sizes
            )
            said = predictions.boxes[i : i + 1]
            priors = Priors(said, predictions.priors.strides, (QUERIES,))
            one = QueryPredictions(priors, predictions.logits[i : i + 1], said, to_shares(said, sizes))
            found.append(linear_sum_assignment(assigner.cost(one, alone)[0].numpy()))
        return found

    batch = assigner(predictions, truth)
    for i, (rows, columns) in enumerate(loop()):
        assert torch.equal(batch.index[i, torch.as_tensor(rows)], torch.as_tensor(columns))
    costs = assigner.cost(predictions, truth)
    alone = [cost[:, keep].numpy() for cost, keep in zip(costs, truth.valid, strict=True)]
    return {
        "poise": lambda: assigner(predictions, truth),
        "scipy loop": loop,
        "solver alone": lambda: [linear_sum_assignment(cost) for cost in alone],
    }


def seconds_of(sides: dict[str, Call], clock: Callable[[], float], turns: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):
        for side, call in sides.items():
            start = clock()
            call()
            if turn:
                taken[side].append(clock() - start)
    return {side: statistics.median(values) for side, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", default="cpu")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    cases = {
        f"encoder of {options.size} px": sampling(options, 0),
        f"decoder, {options.queries} queries": sampling(options, options.queries),
        f"matching {LAYERS} x {IMAGES} x {QUERIES}": matching(),
    }
    print(f"{record.headline()}; {options.threads} threads, {options.clock} time, batch {options.batch}\n")
    print("| case | poise, ms | against, ms | ratio |\n|---|---:|---|---:|")
    rows = []
    for case, sides in cases.items():
        seconds = seconds_of(sides, clock, options.turns)
        row: record.Row = {"case": case, "poise_ms": 1000 * seconds["poise"]}
        others = {side: value for side, value in seconds.items() if side != "poise"}
        for side, value in others.items():
            row |= {f"{side} time": 1000 * value, f"{side.replace(' ', '_')}_ratio": value / seconds["poise"]}
        rows.append(row)
        said = ", ".join(f"{side} {1000 * value:.1f}" for side, value in others.items())
        ratios = ", ".join(f"{value / seconds['poise']:.2f}" for value in others.values())
        print(f"| {case} | {row['poise_ms']:.1f} | {said} | {ratios} |", flush=True)
    record.write(options.json, "deformable_attention", options, rows)


if __name__ == "__main__":
    main()
