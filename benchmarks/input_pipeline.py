"""CPU time an image through decoding, resizing and augmentation to the network's input, on one core.

    python benchmarks/input_pipeline.py [--images 64] [--size 320] [--short 320 --long 533] [--data FOLDER]
                                        [--peers] [--rounds 3] [--keep-memory] [--only STAGE ...]
                                        [--json FILE]

Without ``--data``, demo scenes of ``--size`` pixels are generated. One process, one thread: what one worker does.
``--peers`` adds torchvision's reference transforms and, where installed, Ultralytics' data set, on the same
photographs, batch by batch in turn (``peer_pipelines.py``). Photographs of one orientation share batches, as in
training. Ultralytics gets the longer side of a 4:3 photograph at ``--short``, rounded up to 32. As networks'
inputs differ in size, their pixels are stated too. With ``--keep-memory`` all sides allocate as workers of poise do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import record
import torch
from peer_pipelines import Pixels, torchvision_pipeline, ultralytics_pipeline
from torch import Tensor

from poise.data import open_data
from poise.data.augment import build_pipeline
from poise.data.dataset import DetectionDataset
from poise.data.demo import write_demo_data
from poise.data.image_set import ImageSet
from poise.data.loader import Collate, EvaluationBatch
from poise.data.worker_memory import keep_freed_memory
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings

BATCH = 8


def stages(short: int) -> dict[str, AugmentSettings]:
    """What is measured, alone or with the flip."""
    return {
        "decode and resize": AugmentSettings(flip=0.0),
        "flip": AugmentSettings(),
        "short side of a range": AugmentSettings(short_range=(short * 3 // 5, short)),
        "scale jitter": AugmentSettings(scale_jitter=(0.5, 2.0)),
        "minimum-IoU crop": AugmentSettings(min_iou_crop=1.0),
        "photometric distortion": AugmentSettings(photometric=1.0),
        "color of NanoDet": AugmentSettings(recolor=1.0),
        "copy-paste": AugmentSettings(copy_paste=1.0),
        "mixup": AugmentSettings(mixup=1.0),
        "mosaic": AugmentSettings(mosaic=1.0),
        "mosaic and mixup": AugmentSettings(mosaic=1.0, mixup=1.0),
    }


def poise_pipeline(image_set: ImageSet, settings: AugmentSettings, preprocess: Preprocess) -> Pixels:
    dataset, collate = DetectionDataset(image_set, build_pipeline(settings, preprocess)), Collate(preprocess)

    def pixels(positions: Sequence[int]) -> Tensor:
        batch, _ = collate([dataset[0, position] for position in positions])
        assert isinstance(batch, EvaluationBatch)
        return batch.pixels

    return pixels


def measure(sides: dict[str, Pixels], chosen: Sequence[int], rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of CPU time and megapixels of input an image, of each side; the least of the rounds."""
    batches = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    best = dict.fromkeys(sides, float("inf"))
    inputs = dict.fromkeys(sides, 0.0)
    for _ in range(rounds):
        total = dict.fromkeys(sides, 0.0)
        inputs = dict.fromkeys(sides, 0.0)
        for positions in batches:
            for name, pixels in sides.items():
                start = time.process_time()
                made = pixels(positions)
                total[name] += time.process_time() - start
                inputs[name] += made.numel() / 3e6
        best = {name: min(best[name], total[name]) for name in sides}
    return {name: (best[name] / len(chosen) * 1e3, inputs[name] / len(chosen)) for name in sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=320, help="longer side of generated images")
    parser.add_argument("--short", type=int, default=320)
    parser.add_argument("--long", type=int, default=533)
    parser.add_argument("--data", type=Path, help="a data set instead of generated images")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--keep-memory", action="store_true", help="allocate memory as in the workers of poise's loader"
    )
    parser.add_argument("--only", nargs="+", help="these stages")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.keep_memory:
        keep_freed_memory()
    preprocess = Preprocess(short=options.short, long=options.long)
    side = -(-round(options.short * 4 / 3) // 32) * 32
    rows: list[record.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or write_demo_data(Path(folder) / "demo", train=options.images, val=1, size=options.size)
        image_set = open_data(data, "train")
        torch.manual_seed(0)
        chosen = list(range(min(options.images, len(image_set))))
        chosen.sort(key=lambda position: image_set[position].width > image_set[position].height)
        print(f"{len(image_set)} images of {data.name}, network input {options.short}/{options.long}")
        cases = {case: found for case, found in stages(options.short).items() if case in (options.only or [case])}
        for case in record.track(cases):
            sides: dict[str, Pixels | None] = {"poise": poise_pipeline(image_set, cases[case], preprocess)}
            if options.peers:
                sides["torchvision"] = torchvision_pipeline(image_set, case, options.short, options.long)
                sides["ultralytics"] = ultralytics_pipeline(image_set, chosen, case, side, Path(folder) / "yolo")
            found = {name: pixels for name, pixels in sides.items() if pixels is not None}
            times = measure(found, chosen, options.rounds)
            own = times["poise"][0]
            line = f"{case:24}{own:8.2f} ms, {times['poise'][1]:.2f} Mpx"
            row: record.Row = {"case": case, "poise_ms": own, "images_per_s": 1e3 / own, "poise_mpx": times["poise"][1]}
            for name, (ms, mpx) in list(times.items())[1:]:
                row.update({f"{name}_ms": ms, f"{name}_mpx": mpx, f"{name}_ratio": ms / own})
                line += f" | {name} {ms:8.2f} ms, {mpx:.2f} Mpx, {ms / own:.2f}"
            rows.append(row)
            print(line, flush=True)
    record.write(options.json, "input_pipeline", options, rows)


if __name__ == "__main__":
    main()
