"""Images per second and core through decoding, resizing and augmentation.

    python benchmarks/input_pipeline.py [--images 64] [--size 320] [--short 320 --long 533] [--data FOLDER]

Without ``--data``, demo scenes of ``--size`` pixels are generated. One process, one thread: what one worker does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import record
import torch

from poise.data import open_data
from poise.data.augment import build_pipeline
from poise.data.dataset import DetectionDataset, Item
from poise.data.demo import write_demo_data
from poise.data.loader import Collate
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings

STAGES = {
    "decode + resize": AugmentSettings(flip=0.0),
    "… + flip": AugmentSettings(flip=0.5),
    "… + photometric": AugmentSettings(photometric=1.0),
    "… + minimum-IoU crop": AugmentSettings(min_iou_crop=1.0),
    "… + scale jitter": AugmentSettings(scale_jitter=(0.5, 2.0)),
    "… + copy-paste": AugmentSettings(copy_paste=1.0),
    "… + mixup": AugmentSettings(mixup=1.0),
    "… + mosaic": AugmentSettings(mosaic=1.0),
}


def images_per_second(dataset: DetectionDataset, collate: Collate, images: int) -> float:
    """Best of three passes, batches of 8 included."""
    best = float("inf")
    for epoch in range(3):
        start = time.process_time()
        for first in range(0, images, 8):
            items = [dataset[epoch, index % len(dataset)] for index in range(first, first + 8)]
            assert all(isinstance(item, Item) for item in items)
            collate(items)
        best = min(best, time.process_time() - start)
    return images / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=320, help="longer side of generated images")
    parser.add_argument("--short", type=int, default=320)
    parser.add_argument("--long", type=int, default=533)
    parser.add_argument("--data", type=Path, help="a data set instead of generated images")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preprocess = Preprocess(short=options.short, long=options.long)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or write_demo_data(Path(folder) / "demo", train=options.images, val=1, size=options.size)
        image_set = open_data(data, "train")
        print(f"{len(image_set)} images of {data.name}, network input {options.short}/{options.long}")
        print(f"{'stage':24}{'images/s/core':>16}{'ms/image':>12}")
        rows: list[record.Row] = []
        for name in record.track(STAGES):
            settings = STAGES[name]
            dataset = DetectionDataset(image_set, build_pipeline(settings, preprocess))
            rate = images_per_second(dataset, Collate(preprocess), options.images)
            rows.append({"case": name, "images_per_s": rate})
            print(f"{name:24}{rate:16.1f}{1000 / rate:12.2f}")
    record.write(options.json, "input_pipeline", options, rows)


if __name__ == "__main__":
    main()
