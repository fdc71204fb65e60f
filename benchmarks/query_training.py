"""Time and memory of a training step of Deformable-DETR++ with more positive queries: Group-DETR, H-DETR, SQR, Co-DETR.

    python benchmarks/query_training.py [--backbone r50] [--size 256] [--batch 2] [--objects 8] [--rounds 5]
                                        [--groups 11] [--one-to-many 1500] [--queries 300] [--layers 6]
                                        [--clock cpu] [--threads 1] [--json FILE]

All rows are one detector with other options; the numbers of queries are the published ones by default. Times are
medians of rounds in which all rows take turns. Memory is what the forward pass keeps for the backward pass, each
storage counted once, weights left out; on a GPU the peak of allocated memory of a step is written as well.
"""

from __future__ import annotations

import argparse
from typing import Any

import record
import torch
from co_detr_inference import count, kept, step, turns

from poise.models import create_model


def rows_of(groups: int, one_to_many: int) -> dict[str, dict[str, Any]]:
    """Options of each row."""
    return {
        "Deformable-DETR++": {},
        f"Group-DETR, {groups} groups": {"query_groups": groups},
        f"H-DETR, {one_to_many} queries": {"one_to_many_queries": one_to_many},
        "SQR": {"recollect": True},
        "Co-DETR, K=1": {"auxiliary_heads": "atss"},
        "Co-DETR, K=2": {"auxiliary_heads": "faster_rcnn,atss"},
        "Co-DETR, K=2, heads without queries": {"auxiliary_heads": "faster_rcnn,atss", "max_auxiliary_queries": 0},
        "Co-DETR, K=2, positives alone": {"auxiliary_heads": "faster_rcnn,atss", "pad_with_negatives": False},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="r50", help="of deformable_detr_plus_…")
    for name, default in (("size", 256), ("batch", 2), ("objects", 8), ("rounds", 5), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("groups", 11), ("one-to-many", 1500), ("queries", 300), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall")
    record.add_json(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shared = {"queries": args.queries, "encoder_layers": args.layers, "decoder_layers": args.layers}
    variants = rows_of(args.groups, args.one_to_many)
    models = [
        create_model(f"deformable_detr_plus_{args.backbone}", **shared, **options).to(device).train()
        for options in variants.values()
    ]
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(args.objects, 2, generator=generator) * args.size / 2
    sides = args.size / 8 + torch.rand(args.objects, 2, generator=generator) * args.size / 4
    targets = [
        {"boxes": torch.cat((corner, corner + sides), 1), "labels": torch.arange(args.objects) % 80}
    ] * args.batch
    pixels = torch.randn(args.batch, 3, args.size, args.size, generator=generator).to(device)
    scene = f"{args.batch} images of {args.size} px, {args.objects} objects"
    print(f"{record.headline()}; {scene}, {device}, {args.clock} time")
    calls = [lambda m=model: step(m, pixels, targets) for model in models]
    seconds = turns(calls, args.rounds, record.CLOCKS[args.clock])
    print("| training | s a step | of the first | MiB kept | of the first | M parameters |")
    print("|---|---:|---:|---:|---:|---:|")
    rows: list[record.Row] = []
    for name, model, each in zip(variants, models, seconds, strict=True):
        row = {"case": name, "step_s": each, "kept_mib": kept(model, pixels, targets), "parameters": count(model)}
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step(model, pixels, targets)
            row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        rows.append(row)
        time, memory = each / seconds[0], row["kept_mib"] / rows[0]["kept_mib"]
        print(f"| {name} | {each:.3f} | {time:.2f} | {row['kept_mib']:.0f} | {memory:.2f} | {row['parameters']:.1f} |")
    record.write(args.json, "query_training", args, rows)


if __name__ == "__main__":
    main()
