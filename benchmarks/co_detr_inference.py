"""What Co-DETR's auxiliary heads cost: parameters and time in inference (nothing), time and memory in a training step.

    python benchmarks/co_detr_inference.py [--name co_deformable_detr_r50] [--size 256] [--rounds 5] [--batch 2]
                                           [--clock cpu] [--threads 1] [--json FILE]

The plain detector is built apart with ``auxiliary_heads=""`` and given the shared weights. Times are medians of
rounds in which all models take turns. Memory is what the forward pass keeps for the backward pass, each storage counted
once, weights left out: the part of a step's memory that the heads add to.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import record
import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.models.roles import without_training_parts

VARIANTS = ("", "atss", "faster_rcnn,atss", "atss,atss")
Targets = list[dict[str, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="co_deformable_detr_r50")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    record.add_json(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = record.CLOCKS[args.clock]
    print(f"{record.headline()}; {args.name}, {args.size} px, {device}, {args.clock} time")
    rows = [inference(args.name, args.size, args.rounds, device, clock)]
    rows += training(args.name, args.size, args.rounds, args.batch, device, clock)
    record.write(args.json, "co_detr_inference", args, rows)


def inference(name: str, size: int, rounds: int, device: str, clock: Callable[[], float]) -> record.Row:
    model = create_model(name).to(device).eval()
    plain = without_training_parts(model)
    pixels = torch.randn(1, 3, size, size, device=device)
    a, b = model.detect(pixels)[0], plain.detect(pixels)[0]
    same = all(torch.equal(a[key], b[key]) for key in a)
    whole, alone = turns([lambda: model.detect(pixels), lambda: plain.detect(pixels)], rounds, clock)
    print(f"parameters: {count(model):.2f} M in training, {count(plain):.2f} M in inference")
    print(f"the same {len(a['scores'])} detections to the last bit: {same}")
    print(f"inference: {whole:.3f} s with heads in memory, {alone:.3f} s without: {whole / alone:.3f}")
    return {"case": "inference", "with_heads_s": whole, "without_s": alone, "same_to_the_bit": float(same)}


def training(
    name: str, size: int, rounds: int, batch: int, device: str, clock: Callable[[], float]
) -> list[record.Row]:
    models = [create_model(name, auxiliary_heads=heads).to(device).train() for heads in VARIANTS]
    boxes = torch.rand(8, 2) * size / 2
    boxes = torch.cat((boxes, boxes + size / 8 + torch.rand(8, 2) * size / 4), 1)
    targets = [{"boxes": boxes, "labels": torch.arange(8)}] * batch
    pixels = torch.randn(batch, 3, size, size, device=device)
    times = turns([lambda m=m: step(m, pixels, targets) for m in models], rounds, clock)  # type: ignore[misc]
    rows = []
    for heads, model, seconds in zip(VARIANTS, models, times, strict=True):
        row = {"case": f"step, heads={heads or 'none'}", "step_s": seconds, "kept_mib": kept(model, pixels, targets)}
        more = f"{seconds / times[0]:.2f} and {row['kept_mib'] / (rows or [row])[0]['kept_mib']:.2f} of the plain one's"
        print(
            f"{row['case']}: {seconds:.3f} s, {row['kept_mib']:.0f} MiB kept ({more}), {count(model):.2f} M parameters"
        )
        rows.append(row)
    return rows


def step(model: DetectionModel, pixels: Tensor, targets: Targets) -> None:
    model.zero_grad()
    torch.stack(list(model.losses(pixels, targets).values())).sum().backward()


def kept(model: DetectionModel, pixels: Tensor, targets: Targets) -> float:
    """MiB of the storages that a forward pass keeps for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = model.losses(pixels, targets)
    del losses  # until here the graph kept every storage, so that no address came twice
    return sum(sizes.values()) / 2**20


def turns(calls: list[Callable[[], object]], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of each call; the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in record.track(range(rounds + 1)):
        for call, record_of in zip(calls, seconds, strict=True):
            start = clock()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            record_of.append(clock() - start)
    return [statistics.median(each[1:]) for each in seconds]


def count(model: DetectionModel) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


if __name__ == "__main__":
    main()
