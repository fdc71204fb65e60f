"""Seconds and memory to open a COCO file as large as train2017: 118,287 images, 860,001 boxes, polygons on request.

python benchmarks/open_annotations.py [--points 30]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import record

from poise.data import open_data
from poise.data.packed import write_annotations

IMAGES, OBJECTS, CLASSES = 118_287, 860_001, 80


def write(root: Path, points: int) -> Path:
    """A COCO data set of random boxes whose image files exist, but are empty."""
    draw = random.Random(0)
    (root / "annotations").mkdir()
    (root / "train2017").mkdir()
    file = root / "annotations" / "instances_train2017.json"
    with file.open("w") as out:
        out.write('{"categories": ' + json.dumps([{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]))
        out.write(', "images": [' + ", ".join(image(root, i) for i in range(IMAGES)) + '], "annotations": [')
        for i in range(OBJECTS):
            out.write((", " if i else "") + annotation(draw, i, points))
        out.write("]}")
    return file


def image(root: Path, i: int) -> str:
    name = f"{i:012d}.jpg"
    (root / "train2017" / name).touch()
    return json.dumps({"license": 3, "file_name": name, "height": 480, "width": 640, "id": i})


def annotation(draw: random.Random, i: int, points: int) -> str:
    box = [round(draw.uniform(0, 300), 2), round(draw.uniform(0, 200), 2), round(draw.uniform(2, 300), 2), 150.25]
    polygon = [[round(draw.uniform(0, 400), 2) for _ in range(2 * points)]] if points else []
    owner, category = draw.randrange(IMAGES), draw.randint(1, CLASSES)
    record = {"segmentation": polygon, "area": box[2] * box[3], "iscrowd": 0, "image_id": owner, "bbox": box}
    return json.dumps(record | {"category_id": category, "id": i + 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=0, help="points of each polygon; train2017 has about 23")
    record.add_json(parser)
    options = parser.parse_args()
    points = options.points
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), points)
        print(f"{file.stat().st_size / 2**20:.0f} MiB, {IMAGES} images, {OBJECTS} boxes")
        packed = Path(folder) / "packed"
        packed.mkdir()
        write_annotations(open_data(folder), packed / "train.annotations.npz", {})
        rows = [opened("packed", packed), opened("COCO JSON", file)]
    record.write(options.json, "open_annotations", options, rows)


def opened(case: str, path: Path) -> record.Row:
    """Seconds and peak memory of a process of its own."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=look, args=(path, child))
    process.start()
    seconds, busy, peak = parent.recv()
    process.join()
    print(f"{case}: {seconds:.2f} s ({busy:.2f} s of CPU time), peak memory {peak:.0f} MiB more")
    return {"case": case, "open_s": seconds, "open_cpu_s": busy, "peak_mib": peak}


def look(path: Path, answer: Connection) -> None:
    before, start, busy = record.memory("VmRSS"), time.perf_counter(), time.process_time()
    images = open_data(path)
    assert len(images) == IMAGES and images.num_objects == OBJECTS
    answer.send((time.perf_counter() - start, time.process_time() - busy, record.memory("VmHWM") - before))


if __name__ == "__main__":
    main()
