"""Hungarian matching of all decoder layers and images in one call, against SciPy in a loop and against transformers.

    python benchmarks/query_matching.py [--layers 6] [--images 16] [--queries 900] [--objects 10 60] [--threads 1]
                                        [--clock cpu] [--json FILE]

All sides get the same predictions and end with the matched pairs of every layer and image, turn by turn:

    poise           the whole assigner, with the IoU of every match, in one call
    scipy loop      layer by layer and image by image: poise's costs of that image alone, then SciPy's solver
    transformers    ``DeformableDetrHungarianMatcher``, once a layer as its loss calls it: costs of all queries and the
                    objects of all images, of which each image's own are solved
    solver alone    SciPy's solver on costs that are already there: what nobody saves
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import numpy as np
import peer_assigners as peers
import record
import torch
from assignment import Call, queries_of, times_of, truth_of
from scipy.optimize import linear_sum_assignment

from poise.assign.hungarian import Hungarian
from poise.structures import Assignment, GroundTruth, Priors, QueryPredictions

Pairs = list[tuple[Any, Any]]


def part_of(predictions: QueryPredictions, truth: GroundTruth, part: slice) -> tuple[QueryPredictions, GroundTruth]:
    """Some of the batch, as a batch, without the padding of its objects (all images have the same number)."""
    boxes = predictions.boxes[part]
    priors = Priors(boxes, predictions.priors.strides, predictions.priors.level_sizes)
    alone = QueryPredictions(priors, predictions.logits[part], boxes, predictions.shares[part])
    count = int(truth.valid[0].sum())
    objects = (truth.boxes, truth.labels, truth.valid, truth.crowd)
    return alone, GroundTruth(*(tensor[part, :count] for tensor in objects), truth.sizes[part])


def sides_of(predictions: QueryPredictions, truth: GroundTruth, layers: int) -> dict[str, Call]:
    batch, assigner = len(truth.boxes), Hungarian()
    one_by_one = [part_of(predictions, truth, slice(i, i + 1)) for i in range(batch)]
    ready = [assigner.cost(predictions, objects)[0].numpy() for predictions, objects in one_by_one]

    def loop() -> Pairs:
        with torch.no_grad():
            return [
                linear_sum_assignment(assigner.cost(predictions, objects)[0].numpy())
                for predictions, objects in one_by_one
            ]

    sides: dict[str, Call] = {"poise": lambda: assigner(predictions, truth), "scipy loop": loop}
    if importlib.util.find_spec("transformers"):
        images = batch // layers
        by_layer = [part_of(predictions, truth, slice(i, i + images)) for i in range(0, batch, images)]
        matchers = [peers.hungarian(*layer)["deformable detr"] for layer in by_layer]
        sides["transformers"] = lambda: [pairs for matcher in matchers for pairs in matcher()]
    return sides | {"solver alone": lambda: [linear_sum_assignment(cost) for cost in ready]}


def same(found: Assignment, pairs: Pairs) -> float:
    """Share of the matched queries for which both find the same object."""
    wanted = torch.full_like(found.index, -1)
    for row, (queries, objects) in zip(wanted, pairs, strict=True):
        row[torch.as_tensor(np.asarray(queries))] = torch.as_tensor(np.asarray(objects))
    owner = torch.where(found.positive, found.index, -1)
    matched = (owner >= 0) | (wanted >= 0)
    return float((owner == wanted)[matched].float().mean())


def measured(objects: int, options: argparse.Namespace) -> record.Row:
    truth = truth_of(options.images, objects).repeat(options.layers)
    predictions = queries_of(options.layers * options.images, options.queries, truth)
    sides = sides_of(predictions, truth, options.layers)
    found = sides["poise"]()
    seconds = times_of(sides, record.CLOCKS[options.clock], options.budget)
    row: record.Row = {"case": f"{objects} objects", "poise_ms": 1000 * seconds["poise"]}
    cells = [f"{row['poise_ms']:.0f}"]
    for side in list(sides)[1:]:
        agreed, ratio = same(found, sides[side]()), seconds[side] / seconds["poise"]
        name = side.replace(" ", "_")
        row |= {f"{side} time": 1000 * seconds[side], f"same as {side}": agreed}
        row["solver" if side == "solver alone" else f"{name}_ratio"] = ratio
        cells.append(f"{1000 * seconds[side]:.0f} ({ratio:.2f}; same {100 * agreed:.2f} %)")
    print(f"| {objects} | {' | '.join(cells)} |", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--queries", type=int, default=900)
    parser.add_argument("--objects", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=record.CLOCKS, default="cpu")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for the turns of a row, at least 3 turns")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{record.headline()}; {options.threads} threads, {options.clock} time")
    print(f"{options.layers} layers x {options.images} images x {options.queries} queries; ms (over poise's)\n")
    known = ["poise", "scipy loop", *(["transformers"] if importlib.util.find_spec("transformers") else [])]
    print(f"| objects | {' | '.join([*known, 'solver alone'])} |\n|---:|{'---:|' * (len(known) + 1)}")
    record.write(
        options.json,
        "query_matching",
        options,
        [measured(objects, options) for objects in record.track(options.objects)],
    )


if __name__ == "__main__":
    main()
