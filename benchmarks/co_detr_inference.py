"""What Co-DETR's auxiliary heads cost: parameters and time in inference (nothing), and in a training step.

    python benchmarks/co_detr_inference.py [--name co_deformable_detr_r50] [--size 256] [--rounds 5] [--batch 2]

The plain detector is built apart, with ``heads=""``, and given the weights that both share. Times are medians over
rounds in which all models take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from poise.detectors import DetectionModel
from poise.models import create_model
from poise.models.roles import without_training_parts

VARIANTS = ("", "atss", "faster_rcnn,atss", "atss,atss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="co_deformable_detr_r50")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inference(arguments.name, arguments.size, arguments.rounds, device)
    training(arguments.name, arguments.size, arguments.rounds, arguments.batch, device)


def inference(name: str, size: int, rounds: int, device: str) -> None:
    model = create_model(name).to(device).eval()
    plain = without_training_parts(model)
    pixels = torch.randn(1, 3, size, size, device=device)
    a, b = model.detect(pixels)[0], plain.detect(pixels)[0]
    same = all(torch.equal(a[key], b[key]) for key in a)
    times = turns([lambda: model.detect(pixels), lambda: plain.detect(pixels)], rounds)
    print(f"{name}, {size} px, {device}, {torch.get_num_threads()} threads")
    print(f"parameters: {count(model):.2f} M in training, {count(plain):.2f} M in inference")
    print(f"the same {len(a['scores'])} detections to the last bit: {same}")
    print(f"inference: {times[0]:.3f} s with heads in memory, {times[1]:.3f} s without: {times[0] / times[1]:.3f}")


def training(name: str, size: int, rounds: int, batch: int, device: str) -> None:
    models = [create_model(name, heads=heads).to(device).train() for heads in VARIANTS]
    boxes = torch.rand(8, 2) * size / 2
    boxes = torch.cat((boxes, boxes + size / 8 + torch.rand(8, 2) * size / 4), 1)
    targets = [{"boxes": boxes, "labels": torch.arange(8)}] * batch
    pixels = torch.randn(batch, 3, size, size, device=device)
    times = turns([lambda m=m: step(m, pixels, targets) for m in models], rounds)  # type: ignore[misc]
    for heads, model, seconds in zip(VARIANTS, models, times, strict=True):
        more = f", {seconds / times[0]:.2f} of the plain one's"
        print(f"training step, heads='{heads}': {seconds:.3f} s{more}, {count(model):.2f} M parameters", end="")
        print(f", {memory(model, pixels, targets):.0f} MiB at most" if device == "cuda" else "")


def step(model: DetectionModel, pixels: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> None:
    model.zero_grad()
    torch.stack(list(model.losses(pixels, targets).values())).sum().backward()


def memory(model: DetectionModel, pixels: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> float:
    torch.cuda.reset_peak_memory_stats()
    step(model, pixels, targets)
    return torch.cuda.max_memory_allocated() / 2**20


def turns(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each call; the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, record in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[1:]) for record in seconds]


def count(model: DetectionModel) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


if __name__ == "__main__":
    main()
