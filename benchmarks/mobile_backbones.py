"""A bfloat16 training step of mobile networks on a CPU, with PyTorch's layers and with those of poise.

    python benchmarks/mobile_backbones.py [--size 160] [--batch 8] [--rounds 5] [--json FILE]

Forward and backward of a backbone under bfloat16 autocast, channels last, CPU time of one thread: as it is, after
``poise.nn.kernels.bfloat16.convert_slow_layers``, and in float32. The three take turns; the fastest round counts.
"""

from __future__ import annotations

import argparse
import copy
import time

import record
import timm
import torch
from torch import Tensor, nn

from poise.nn.kernels.bfloat16 import convert_slow_layers

NETWORKS = ("mobilenetv2_100", "efficientnet_lite0", "mobilenetv3_large_100", "convnext_atto", "resnet18")


def step(network: nn.Module, pixels: Tensor, precision: torch.dtype) -> float:
    """CPU seconds of one forward and backward pass."""
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        maps = network(pixels)
    sum(one.float().square().mean() for one in maps).backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="timm's names")
    record.add_json(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{record.headline()}; {args.batch}x3x{args.size}x{args.size}, CPU milliseconds of forward and backward")
    print("| network | bfloat16 | converted | float32 | bfloat16 / converted |\n|---|---:|---:|---:|---:|")
    rows: list[record.Row] = []
    for name in args.networks:
        plain = timm.create_model(name, features_only=True, pretrained=False)
        plain = plain.to(memory_format=torch.channels_last).train()
        converted = copy.deepcopy(plain)
        convert_slow_layers(converted)
        pixels = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
        sides = ((plain, torch.bfloat16), (converted, torch.bfloat16), (plain, torch.float32))
        times: list[list[float]] = [[] for _ in sides]
        for _ in range(args.rounds + 1):
            for (network, precision), found in zip(sides, times, strict=True):
                found.append(step(network, pixels, precision))
        before, after, single = (1000 * min(found[1:]) for found in times)
        print(f"| {name} | {before:.0f} | {after:.0f} | {single:.0f} | {before / after:.2f} |", flush=True)
        rows.append(
            {"case": name, "bfloat16_ms": before, "converted_ms": after, "float32_ms": single, "ratio": before / after}
        )
    record.write(args.json, "mobile_backbones", args, rows)


if __name__ == "__main__":
    main()
