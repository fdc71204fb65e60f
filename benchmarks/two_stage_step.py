"""A training step (forward, losses, backward) of poise's Faster R-CNN against torchvision's on the same inputs.

Both get the same images and objects, as many anchors, proposals and sampled regions, batch norms at rest (without
gradient, as torchvision's pretrained backbones have them) and the same frozen first stage, turn by turn in one run. The
optimizer is left out: it is the same for both. Wall time suffers from whatever else the machine does; process time (the
CPU time of all threads) less so.

    python benchmarks/two_stage_step.py [--sizes 256 512] [--batch 2] [--steps 7] [--threads 2] [--device cpu]
                                        [--sampling-ratio 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import record
import torch
from torch import Tensor, nn
from train_step import contestants, scene

NAME = "faster_rcnn_r50_fpn"
Seconds = tuple[float, float]  # wall, process


def step_of(
    model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]], device: str
) -> Callable[[], Seconds]:
    def step() -> Seconds:
        model.zero_grad(set_to_none=True)
        start = time.perf_counter(), time.process_time()
        torch.stack(list(model(images, targets).values())).sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start[0], time.process_time() - start[1]

    return step


def norms_at_rest(model: nn.Module) -> None:
    """Batch norms keep their statistics (their mode is set already) and their weights."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def measure(size: int, args: argparse.Namespace) -> dict[str, float]:
    images, targets = scene(args.batch, size, args.objects, args.device)
    mine, theirs = contestants(NAME, size, args.device)
    theirs.roi_heads.box_roi_pool.sampling_ratio = args.sampling_ratio  # type: ignore[union-attr]
    for model in (mine, theirs):
        norms_at_rest(model)
    steps = [step_of(model, images, targets, args.device) for model in (mine, theirs)]
    for step in steps:
        step()
    rounds = [[step() for step in (steps if turn % 2 else steps[::-1])] for turn in range(args.steps)]
    rounds = [pair if turn % 2 else pair[::-1] for turn, pair in enumerate(rounds)]
    row: dict[str, float] = {"size": size}
    for column, clock in enumerate(("wall", "process")):
        pairs = [(ours[column], others[column]) for ours, others in rounds]
        row[f"poise_{clock}"], row[f"torchvision_{clock}"] = map(statistics.median, zip(*pairs, strict=True))
        row[f"ratio_{clock}"] = statistics.median(a / b for a, b in pairs)
    return row


def table(rows: list[dict[str, float]]) -> str:
    """Markdown: medians, and the median of the ratios of each turn."""
    titles = ("pixels", "poise s", "torchvision s", "poise / torchvision", "poise CPU s", "torchvision CPU s", "ratio")
    keys = ("poise_wall", "torchvision_wall", "ratio_wall", "poise_process", "torchvision_process", "ratio_process")
    lines = [f"| {' | '.join(titles)} |", f"|{'---:|' * len(titles)}"]
    lines += [f"| {row['size']} | {' | '.join(f'{row[key]:.2f}' for key in keys)} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--sampling-ratio", type=int, default=2, help="of torchvision's RoIAlign; poise's is 0: adaptive"
    )
    record.add_json(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(size, args) for size in record.track(args.sizes)]
    print(f"{record.headline()}; on {args.device}")
    print(f"{args.batch} images, {args.objects} objects each, {args.threads} threads, median of {args.steps} turns")
    print(table(rows))
    kept = [
        {
            "case": f"faster_rcnn_r50_fpn at {row['size']} px",
            "poise_s": row["poise_wall"],
            "poise_cpu_s": row["poise_process"],
            "torchvision time": row["torchvision_wall"],
            "torchvision_ratio": 1 / row["ratio_wall"],
            "torchvision_cpu_ratio": 1 / row["ratio_process"],
        }
        for row in rows
    ]
    record.write(args.json, "two_stage_step", args, kept)


if __name__ == "__main__":
    main()
