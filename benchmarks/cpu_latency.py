"""Milliseconds per image on the CPU: PyTorch and ONNX Runtime, with preparation and post-processing stated apart.

    python benchmarks/cpu_latency.py nanodet.pt IMAGE … [--threads 2] [--repeats 50]

The checkpoint is exported into a temporary folder first. Every row is the median over the repeats in one process; the
two ways of post-processing are compared on the same network outputs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

import poise
from poise.boxes import clip
from poise.data.images import read_image
from poise.export import export_onnx, load_onnx
from poise.structures import Predictions


def milliseconds(action: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after a few that do not count."""
    for _ in range(max(3, repeats // 10)):
        action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def class_by_class(predictions: Predictions, sizes: Tensor, score: float, overlap: float, most: int) -> list[Tensor]:
    """What post-processing does, literally: one NMS a class and image."""
    kept = []
    for i, (scores, boxes) in enumerate(zip(predictions.scores(), predictions.boxes, strict=True)):
        boxes = clip(boxes[None], sizes[i : i + 1])[0]
        rows = []
        for label in range(scores.shape[1]):
            chosen = scores[:, label] > score
            keep = nms(boxes[chosen], scores[chosen, label], overlap)
            values = scores[chosen, label][keep, None]
            rows.append(torch.cat((boxes[chosen][keep], values, torch.full_like(values, label)), 1))
        found = torch.cat(rows)
        kept.append(found[found[:, 4].argsort(descending=True)[:most]])
    return kept


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = poise.load(arguments.checkpoint).eval()
    images = [read_image(Path(name)) for name in arguments.images]

    def prepare() -> tuple[Tensor, Tensor]:
        return model.preprocess.batch([model.preprocess.normalize(model.preprocess.resize(images[0]))])

    pixels, sizes = prepare()
    network, post = model.network, model.network.branch.postprocess
    predictions = network.branch.head(network.neck(network.backbone(pixels)))
    rows = [("preparation (resize, normalise)", prepare)]
    rows.append(("network, PyTorch", lambda: network.branch.head(network.neck(network.backbone(pixels)))))
    with tempfile.TemporaryDirectory() as folder:
        plain, whole = Path(folder) / "plain.onnx", Path(folder) / "nms.onnx"
        print("export:", export_onnx(model, plain, images))
        print("export with NMS:", export_onnx(model, whole, images, nms=True))
        exported = {name: load_onnx(path, arguments.threads).network for name, path in (("", plain), ("+ NMS", whole))}
        rows.append(("network, ONNX Runtime", lambda: exported[""].outputs(exported[""].padded(pixels))))
        rows.append(("network + NMS, ONNX Runtime", lambda: exported["+ NMS"].predict(pixels, sizes)))
        rows.append(("post-processing, batched", lambda: post(predictions, sizes)))
        literal = (post.score, post.nms, post.most)
        rows.append(("post-processing, class by class", lambda: class_by_class(predictions, sizes, *literal)))
        rows.append(("whole, PyTorch", lambda: network.predict(*prepare())))
        rows.append(("whole, ONNX Runtime", lambda: exported[""].predict(*prepare())))
        height, width = pixels.shape[2:]
        print(
            f"\n{model.name}, {height} x {width}, batch 1, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}\n"
        )
        for name, action in rows:
            print(f"{name:34s} {milliseconds(action, arguments.repeats):8.2f} ms")


if __name__ == "__main__":
    main()
