"""Compares every assigner with the same rule written image by image and object by object, and with installed peers.

    python benchmarks/assignment.py [--objects 1 10 60 300] [--assigners atss ...] [--batch 4] [--threads 2]
                                    [--clock wall] [--no-memory] [--json FILE]

Inputs: the pyramid of 800 x 1344 pixels (22,400 priors, for FreeAnchor nine anchors each), 80 classes. All sides
alternate in one run; times are medians in milliseconds an image; memory is the peak of a separate process above its
memory before, for the whole batch. "same" is the share of priors with the same object in both (hard assigners; the
literal form breaks ties as topk does), or the largest difference of weights (soft ones).

Peers, where installed: Ultralytics' TaskAlignedAssigner (whose boxes are compared by CIoU), torchvision's Matcher,
transformers' matchers of DETR and Deformable DETR.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import literal_assigners as literal
import peer_assigners as peers
import record
import torch
from torch import Tensor

from poise.assign.hungarian import Hungarian
from poise.boxes import normalize_boxes
from poise.models.assigners import ASSIGNERS
from poise.nn.layers import AnchorGrid, point_grid, retina_anchors, square_anchors
from poise.structures import (
    Assignment,
    GroundTruth,
    JointPredictions,
    PairWeights,
    Predictions,
    Priors,
    QueryPredictions,
)

STRIDES, HEIGHT, WIDTH, CLASSES = (8, 16, 32, 64, 128), 800, 1344, 80
QUERIES = (300, 900)
Call = Callable[[], Any]


def grid_of(name: str) -> AnchorGrid:
    if name == "free_anchor":
        return retina_anchors(STRIDES)
    return square_anchors(STRIDES) if ASSIGNERS[name].needs.startswith("anchors") else point_grid(STRIDES, 0.5)


def truth_of(batch: int, objects: int) -> GroundTruth:
    """Boxes whose sides are 8 to 400 pixels, evenly in their logarithm."""
    generator = torch.Generator().manual_seed(objects)
    size = 8 * (torch.rand(batch, objects, 2, generator=generator) * math.log(50)).exp()
    corner = torch.rand(batch, objects, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - size)
    labels = torch.randint(CLASSES, (batch, objects), generator=generator)
    boxes = torch.cat((corner, corner + size), 2)
    targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
    return GroundTruth.collate(targets, [(HEIGHT, WIDTH)] * batch)


def predictions_of(name: str, batch: int) -> Predictions:
    """Boxes around every prior, up to four strides to a side, as a network in training gives them."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.zeros(batch, 1, -(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    priors = grid_of(name)(maps)
    num_priors = priors.boxes.shape[1]
    sides = torch.rand(batch, num_priors, 4, generator=generator) * priors.strides[:, None] * 4
    boxes = priors.centers.repeat(1, 1, 2) + sides * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    logits = torch.randn(batch, num_priors, CLASSES, generator=generator) - 3
    return JointPredictions(priors, logits, boxes, torch.randn(batch, num_priors, generator=generator))


def images_of(predictions: Predictions, truth: GroundTruth) -> list[literal.Image]:
    priors, values = predictions.priors, vars(predictions)
    return [
        literal.Image(
            priors.boxes[0], priors.strides, priors.level_sizes, values["logits"][i], values["boxes"][i],
            values["quality"][i], truth.boxes[i][truth.valid[i]], truth.labels[i][truth.valid[i]],
        )
        for i in range(len(truth.boxes))
    ]  # fmt: skip


def queries_of(batch: int, queries: int, truth: GroundTruth) -> QueryPredictions:
    generator = torch.Generator().manual_seed(1)
    center = torch.rand(batch, queries, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    half = torch.rand(batch, queries, 2, generator=generator) * 150 + 4
    boxes = torch.cat((center - half, center + half), 2)
    logits = torch.randn(batch, queries, CLASSES, generator=generator) - 3
    priors = Priors(boxes, torch.ones(queries), (queries,))
    return QueryPredictions(priors, logits, boxes, normalize_boxes(boxes, truth.sizes))


def sides_of(name: str, batch: int, objects: int) -> dict[str, Call]:
    """The calls to compare, the one of poise first."""
    truth = truth_of(batch, objects)
    if name.startswith("hungarian"):
        predictions = queries_of(batch, int(name.rsplit("_", 1)[1]), truth)
        return {"poise": lambda: Hungarian()(predictions, truth)} | peers.hungarian(predictions, truth)
    predictions, assigner = predictions_of(name, batch), ASSIGNERS[name].make()
    images = images_of(predictions, truth)
    rule: Callable[[literal.Image], Any] = {**literal.HARD, **literal.SOFT}[name]
    sides: dict[str, Call] = {"poise": lambda: assigner(predictions, truth)}
    sides["literal"] = torch.no_grad()(lambda: [rule(image) for image in images])
    if name == "task_aligned":
        sides |= peers.task_aligned(predictions, truth, CLASSES)
    if name == "max_iou":
        sides |= peers.matcher(predictions, truth)
    return sides


def agreement(found: Any, wanted: list[Any]) -> float:
    """Share of priors with the same object; of soft assigners the largest difference of a weight."""
    if isinstance(found, Assignment):
        owner = torch.where(found.positive, found.index, -1)
        return float((owner == torch.stack(wanted)).float().mean())
    assert isinstance(found, PairWeights)
    count = wanted[0][0].shape[1]
    pairs = found.pairs()[..., :count]
    parts: list[tuple[Tensor, Tensor]] = [(pairs, torch.stack([w[0] for w in wanted]))]
    parts.append((found.negative, torch.stack([w[1] for w in wanted])))
    return max(float((a - b).abs().max()) for a, b in parts)


def times_of(sides: dict[str, Call], clock: Callable[[], float], budget: float) -> dict[str, float]:
    """Median seconds of each call; they alternate, at least 3 times and as often as fits into ``budget`` seconds."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    started = time.perf_counter()
    for turn in range(25):
        if turn >= 3 and time.perf_counter() - started > budget:
            break
        for side, call in sides.items():
            start = clock()
            call()
            taken[side].append(clock() - start)
    return {side: statistics.median(values) for side, values in taken.items()}


def memory_of(call: Call) -> float:
    """Peak memory of the call above the memory before, MiB, measured in a forked process."""
    parent, child = multiprocessing.Pipe()

    def measure() -> None:
        before = record.memory("VmRSS")
        call()
        child.send(record.memory("VmHWM") - before)

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    process.join()
    return parent.recv() if parent.poll() else math.nan


def measure(name: str, objects: int, options: argparse.Namespace) -> record.Row:
    sides = sides_of(name, options.batch, objects)
    row: record.Row = {"case": f"{name}/{objects}", "assigner": name, "objects": objects}
    if options.memory:
        torch.set_num_threads(1)  # nothing runs in parallel before the fork
        row["memory_mib"] = memory_of(sides["poise"])
    return row | {"sides": sides}


def timed(row: record.Row, options: argparse.Namespace) -> record.Row:
    sides = row.pop("sides")
    first = {side: call() for side, call in sides.items()}
    if "literal" in sides:
        row["same"] = agreement(first["poise"], first["literal"])
    seconds = times_of(sides, record.CLOCKS[options.clock], options.budget)
    row["poise_ms"] = 1000 * seconds["poise"] / options.batch
    for side in sides:
        if side != "poise":
            row[f"{side.replace(' ', '_')} time"] = 1000 * seconds[side] / options.batch
            row[f"{side.replace(' ', '_')}_ratio"] = seconds[side] / seconds["poise"]
    return row


def printed(row: record.Row) -> str:
    others = [name.removesuffix("_ratio") for name in row if name.endswith("_ratio")]
    compared = "; ".join(f"{other} {row[f'{other} time']:.1f} ms, {row[f'{other}_ratio']:.1f}x" for other in others)
    memory = f"{row['memory_mib']:.0f}" if "memory_mib" in row else "-"
    same = f"{row['same']:.5f}" if "same" in row else "-"
    return f"| {row['assigner']} | {row['objects']} | {row['poise_ms']:.1f} | {memory} | {compared} | {same} |"


def verdicts(rows: list[record.Row]) -> list[str]:
    """The targets that these rows miss."""
    messages = []
    for row in rows:
        if row["objects"] == 60 and row.get("literal_ratio", 10) < 10:
            messages.append(f"{row['case']}: {row['literal_ratio']:.1f} times as fast as the literal form, not 10")
        slower = [name for name in row if name.endswith("_ratio") and row[name] < 1]
        messages += [f"{row['case']}: slower than {name.removesuffix('_ratio')}" for name in slower]
    at = {(row["assigner"], row["objects"]): row["poise_ms"] for row in rows}
    for name in dict(at):
        low, high = at.get((name[0], 60)), at.get((name[0], 300))
        if low and high and name[1] == 300 and high > 5 * low * 1.2:
            messages.append(f"{name[0]}: 300 objects take {high / low:.1f} times as long as 60, more than linear")
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*ASSIGNERS, *(f"hungarian_{queries}" for queries in QUERIES)]
    parser.add_argument("--assigners", nargs="+", choices=everything, default=everything)
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 10, 60, 300])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for the turns of a row, at least 3 turns")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{record.headline()}; {options.threads} threads, {options.clock} time, {options.batch} images\n")
    print("| assigner | objects | poise, ms an image | memory, MiB | against | same |\n|---|---:|---:|---:|---|---:|")
    rows = []
    for name in record.track(options.assigners):
        pending = [measure(name, objects, options) for objects in options.objects]
        torch.set_num_threads(options.threads)
        for row in pending:
            rows.append(timed(row, options))
            print(printed(rows[-1]), flush=True)
        torch.set_num_threads(1)
    print("\n" + ("\n".join(verdicts(rows)) or "these rows meet every target"))
    record.write(options.json, "assignment", options, rows)


if __name__ == "__main__":
    main()
