"""COCO-size evaluation: poise (hotcoco) against pycocotools on the same synthetic results, in one run.

    python benchmarks/evaluation.py [--images 5000] [--detections 500000] [--repeat 3]

Both start from the same Python objects (a COCO dictionary and a list of results) and end with the twelve numbers, which
are compared. poise's time includes per-class metrics and curves. Wall time and CPU time in seconds:
poise uses all cores, pycocotools one.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import platform
import statistics
import time
from typing import Any

import numpy as np
import record

from poise.evaluate import measure_coco

CLASSES = 80
OBJECTS = 7.3  # an image, as in COCO val2017 (36,781 in 5,000)


def synthetic(images: int, detections: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth with COCO's numbers of objects and classes; detections near objects and anywhere."""
    rng = np.random.default_rng(seed)
    count = int(images * OBJECTS)
    image, label = rng.integers(1, images + 1, count), rng.integers(1, CLASSES + 1, count)
    size = np.exp(rng.uniform(np.log(8), np.log(320), (count, 2)))
    boxes = np.concatenate((rng.uniform(0, 640 - size), size), 1)
    crowd = rng.random(count) < 0.01
    annotations = [
        {"id": i + 1, "image_id": int(image[i]), "category_id": int(label[i]), "bbox": boxes[i].tolist(),
         "area": float(size[i].prod()), "iscrowd": int(crowd[i])}
        for i in range(count)
    ]  # fmt: skip
    truth = {
        "images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    origin = rng.integers(0, count, detections)
    near = boxes[origin] + rng.normal(0, 0.08, (detections, 4)) * size[origin].mean(1, keepdims=True)
    near[:, 2:] = near[:, 2:].clip(1)
    stray = rng.random(detections) < 0.4
    near[stray, :2] = rng.uniform(0, 600, (int(stray.sum()), 2))
    named = np.where(rng.random(detections) < 0.8, label[origin], rng.integers(1, CLASSES + 1, detections))
    scores = rng.random(detections)
    results = [
        {"image_id": int(image[o]), "category_id": int(named[i]), "bbox": near[i].tolist(), "score": float(scores[i])}
        for i, o in enumerate(origin)
    ]
    return truth, results


def pycocotools_numbers(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = truth
        gold.createIndex()
        run = COCOeval(gold, gold.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return list(run.stats)


def poise_numbers(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    return list(measure_coco(truth, results).metrics.numbers().values())


def timed(
    function: Any, truth: dict[str, Any], results: list[dict[str, Any]], repeat: int
) -> tuple[float, float, list[float]]:
    """Median seconds, median CPU seconds (on fresh copies, as pycocotools writes into its input) and the numbers."""
    seconds, busy, numbers = [], [], []
    for _ in record.track(range(repeat)):
        inputs = copy.deepcopy(truth), copy.deepcopy(results)
        started, worked = time.perf_counter(), time.process_time()
        numbers = function(*inputs)
        seconds.append(time.perf_counter() - started)
        busy.append(time.process_time() - worked)
    return statistics.median(seconds), statistics.median(busy), numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts")
    record.add_json(parser)
    arguments = parser.parse_args()
    truth, results = synthetic(arguments.images, arguments.detections)
    print(
        f"{arguments.images} images, {len(truth['annotations'])} objects, {len(results)} detections, {CLASSES} classes"
        f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"median of {arguments.repeat}"
    )
    reference, reference_cpu, expected = timed(pycocotools_numbers, truth, results, arguments.repeat)
    own, own_cpu, found = timed(poise_numbers, truth, results, arguments.repeat)
    difference = float(np.abs(np.array(found) - np.array(expected)).max())
    print("| evaluator   | seconds | CPU seconds | AP     |\n|-------------|--------:|------------:|-------:|")
    print(f"| pycocotools | {reference:7.2f} | {reference_cpu:11.2f} | {expected[0]:.4f} |")
    print(f"| poise       | {own:7.2f} | {own_cpu:11.2f} | {found[0]:.4f} |")
    print(f"\n{reference / own:.1f} times as fast; largest difference of the twelve numbers {difference:.1e}")
    case = f"{arguments.images} images, {arguments.detections} detections"
    row = {"case": case, "poise_s": own, "pycocotools time": reference, "pycocotools_ratio": reference / own}
    row |= {"poise_cpu_s": own_cpu, "pycocotools CPU time": reference_cpu, "cpu_ratio": reference_cpu / own_cpu}
    record.write(arguments.json, "evaluation", arguments, [row | {"largest difference": difference}])


if __name__ == "__main__":
    main()
