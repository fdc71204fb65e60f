"""Bytes that the operations of a training step read and write, of poise's detectors and torchvision's.

    python benchmarks/memory_traffic.py [--models fcos_r50_fpn] [--size 320] [--batch 2] [--rows 12] [--json FILE]

Counts the storages of the tensors that enter and leave every operation of forward, backward and optimizer; views count
nothing. An operation that reads a tensor twice, or whose tensors stay in the cache, moves other amounts: these are the
bytes that a machine without caches would move.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import record
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from train_step import PAIRS, contestants, scene, step_of


class Traffic(TorchDispatchMode):
    """Adds the bytes of tensors of every operation to ``bytes`` and counts its calls in ``calls``."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in str(func):
            tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)]
            self.bytes[str(func)] += sum(t.numel() * t.element_size() for t in tensors)
            self.calls[str(func)] += 1
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--rows", type=int, default=12, help="operations listed for each side")
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=["fcos_r50_fpn"])
    record.add_json(parser)
    args = parser.parse_args()
    args.device, args.clock = "cpu", "cpu"
    print(f"{record.headline()}; {args.batch}x3x{args.size}x{args.size}, {args.objects} objects an image")
    rows: list[record.Row] = []
    for name in args.models:
        images, targets = scene(args.batch, args.size, args.objects, "cpu")
        for side, model in zip(("poise", "torchvision"), contestants(name, args.size, "cpu"), strict=True):
            step = step_of(model, images, targets, args)
            step()
            with Traffic() as traffic:
                step()
            print(f"\n{name}, {side}: {sum(traffic.bytes.values()) / 2**20:.0f} MiB a step\n")
            print("| operation | calls | MiB |\n|---|---:|---:|")
            for operation, size in traffic.bytes.most_common(args.rows):
                print(f"| `{operation}` | {traffic.calls[operation]} | {size / 2**20:.0f} |")
                rows.append({"case": f"{name}, {side}, {operation}", "MiB": size / 2**20})
    record.write(args.json, "memory_traffic", args, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
