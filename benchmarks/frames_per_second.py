"""Frames a second of several detectors in one run, at batch 1; by default VarifocalNet and ATSS.

    python benchmarks/frames_per_second.py [--models atss_r50_fpn vfnet_r50_fpn] [--size 800 1333] [--images PATH]
                                           [--rounds 20] [--clock wall] [--threads 1] [--json FILE]

All models take turns on the same image, so that a change of the machine's load reaches all of them. The first model is
the reference of the ratios. Weights are random; heads start with the scores of the prior, so that few boxes reach NMS.
With ``--weights coco`` the published weights are fetched. The time includes the post-processing, not the
preparation of the image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import record
import torch
from co_detr_inference import turns

import poise
from poise.data.images import SUFFIXES, read_image

MODELS = ("atss_r50_fpn", "vfnet_r50_fpn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1333], metavar=("SHORT", "LONG"))
    parser.add_argument("--weights", default="", help="start of the models, such as coco; empty: random")
    parser.add_argument("--images", type=Path, help="a folder, whose first photograph is used; otherwise noise")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    record.add_json(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    short, long = args.size
    image = torch.rand(3, short, long, generator=torch.Generator().manual_seed(0))
    if args.images:
        found = sorted(path for path in args.images.iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            parser.error(f"no image in {args.images}")
        image = read_image(found[0])
    calls = []
    for name in args.models:
        start = {"weights": args.weights} if args.weights else {}
        model = poise.Detector(name, image_size=(short, long), **start).model.to(device).eval()
        pixels, sizes, _ = model.prepare([image])
        calls.append(lambda m=model, p=pixels, s=sizes: m.predict(p, s))
    rows = []
    print(
        f"{record.headline()}; {short} x {long}, {device}, batch 1, median of {args.rounds} rounds, {args.clock} time"
    )
    seconds = turns(calls, args.rounds, record.CLOCKS[args.clock])
    print("| model | ms a frame | frames a second | of the first |\n|---|---:|---:|---:|")
    for name, each in zip(args.models, seconds, strict=True):
        row = {"case": name, "frame_ms": 1000 * each, "frames_per_s": 1 / each, "speed_ratio": seconds[0] / each}
        print(f"| `{name}` | {row['frame_ms']:.1f} | {row['frames_per_s']:.2f} | {row['speed_ratio']:.2f} |")
        rows.append(row)
    record.write(args.json, "frames_per_second", args, rows)


if __name__ == "__main__":
    main()
