"""What assignment and losses cost in a training step of each dense method, against backbone, neck and head.

Assignment is the assigner's call, loss the criterion's call and its gradients down to the head's outputs; the step is
forward, loss and backward of the whole network. All models are measured turn by turn in one run.

    python benchmarks/assignment_share.py [--size 320] [--batch 2] [--objects 7] [--backbone r18] [--device cpu]
                                          [--clock cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import record
import torch
from torch import Tensor, nn

from poise.models import create_model
from poise.structures import Batch, GroundTruth, value_at

FAMILIES = ("fcos", "retinanet", "atss", "gfl", "foveabox", "tood", "autoassign", "vfnet", "dw")


def truth_of(batch: int, size: int, objects: int, device: str) -> GroundTruth:
    """Random boxes of 8 pixels to 35 % of the image."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(batch, objects, 2, generator=generator) * size * 0.6
    extent = 8 + torch.rand(batch, objects, 2, generator=generator) * size * 0.35
    labels = torch.randint(0, 80, (batch, objects), generator=generator)
    targets = [
        {"boxes": boxes.to(device), "labels": classes.to(device)}
        for boxes, classes in zip(torch.cat((corner, corner + extent), 2), labels, strict=True)
    ]
    return GroundTruth.collate(targets, [(size, size)] * batch)


def loose(predictions: Any) -> Any:
    """The same predictions as leaves of their own graph."""
    values = {f.name: getattr(predictions, f.name) for f in fields(predictions)}
    leaves = {name: value.detach().requires_grad_() for name, value in values.items() if isinstance(value, Tensor)}
    return replace(predictions, **leaves)


def timed(call: Callable[[], Any], device: str, clock: Callable[[], float]) -> tuple[Any, float]:
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    result = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return result, clock() - start


def measure(
    network: Any, batch: Batch, progress: Any, precision: str, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Seconds of the assignment, of the losses with their gradients, and of the whole step."""
    device = batch.pixels.device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            total = network(batch, progress).total
        total.backward()

    network.zero_grad(set_to_none=True)
    whole = timed(step, device, clock)[1]
    branch = network.branch
    with torch.no_grad():
        predictions = loose(branch.head(network.neck(network.backbone(batch.pixels))))
    assignment, assigning = timed(lambda: value_at(branch.assigner, progress)(predictions, batch.truth), device, clock)
    criterion = value_at(branch.criterion, progress)
    losing = timed(lambda: sum(criterion(predictions, assignment, batch.truth).values()).backward(), device, clock)[1]
    return assigning, losing, whole


def freeze_as_published(network: nn.Module) -> None:
    network.backbone.freeze_as_pretrained()  # type: ignore[operator, union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--backbone", default="r18")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall")
    record.add_json(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    truth = truth_of(args.batch, args.size, args.objects, args.device)
    pixels = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    batch = Batch(pixels, truth, torch.arange(args.batch, device=args.device))
    models = {}
    for family in args.families:
        model = create_model(f"{family}_{args.backbone}_fpn").to(args.device).train()
        freeze_as_published(model.network)
        models[model.name] = model
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for turn in record.track(range(args.steps + 1)):
        for name, model in models.items():
            result = measure(model.network, batch, model.progress, args.precision, record.CLOCKS[args.clock])
            if turn:
                times[name].append(result)
    print(f"{record.headline()}; on {args.device}, {args.precision}, {args.clock} time")
    print(f"{args.batch}x3x{args.size}x{args.size}, {args.objects} objects an image, {args.threads} threads")
    print("| model | step ms | assignment ms | loss ms | share |\n|---|---:|---:|---:|---:|")
    rows = []
    for name, taken in times.items():
        assigning, losing, whole = (1000 * statistics.median(column) for column in zip(*taken, strict=True))
        rows.append({"case": name, "step_ms": whole, "assignment_ms": assigning, "loss_ms": losing})
        share = (assigning + losing) / whole
        print(f"| `{name}` | {whole:.0f} | {assigning:.1f} | {losing:.1f} | {100 * share:.1f} % |")
    record.write(args.json, "assignment_share", args, rows)


if __name__ == "__main__":
    main()
