"""Milliseconds per image on the CPU at batch 1: PyTorch, ONNX Runtime, OpenVINO, ncnn and ExecuTorch, in one run.

    python benchmarks/cpu_latency.py --weights nanodet-plus-m_320.pth --images "photos/*.jpg" [--threads 2]
    python benchmarks/cpu_latency.py --checkpoint model.pt --images photos [--formats onnx openvino]

Stated apart: preparation (resize, normalize), the network (with decoding of boxes and scores) in each runtime, the
post-processing (threshold, NMS), and the whole. Every row is the median over the repeats, each of which takes the next
image. The files are exported first, so each has passed its comparison with PyTorch; a runtime that is not installed is
left out with a line that says so. Post-processing is also timed against a literal loop with one NMS a class.
"""

from __future__ import annotations

import argparse
import glob
import itertools
import os
import statistics
import sys
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
from poise.data.images import SUFFIXES, read_image
from poise.detection_model import DetectionModel
from poise.export import FORMATS, ExportMismatch, default_path, export_model, load_exported
from poise.structures import Predictions

NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn", "executorch": "ExecuTorch"}


def milliseconds(action: Callable[[Any], Any], inputs: list[Any], repeats: int) -> float:
    """Median time of a call, after a few that do not count."""
    times = []
    warm = max(3, repeats // 10)
    for number, value in enumerate(itertools.islice(itertools.cycle(inputs), warm + repeats)):
        start = time.perf_counter()
        action(value)
        if number >= warm:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def class_by_class(predictions: Predictions, sizes: Tensor, score: float, overlap: float, limit: int) -> list[Tensor]:
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
        kept.append(found[found[:, 4].argsort(descending=True)[:limit]])
    return kept


def exported(
    model: DetectionModel, images: list[Tensor], names: list[str], threads: int, folder: Path
) -> dict[str, Any]:
    """The networks of the files that could be made, by the name of their row."""
    networks: dict[str, Any] = {}
    for name in names:
        for nms_inside in (False, True) if "nms" not in FORMATS[name].refusals else (False,):
            path = default_path(folder / f"model{nms_inside:d}.pt", name)
            try:
                export_model(model, path, images[:4], format=name, nms=nms_inside)
            except (ImportError, ExportMismatch, ValueError) as error:
                print(f"left out: {name}: {error}", file=sys.stderr)
                continue
            row = f"{NAMES[name]}, NMS inside" if nms_inside else NAMES[name]
            networks[row] = load_exported(path, threads).network
    return networks


def table(model: DetectionModel, images: list[Tensor], networks: dict[str, Any], repeats: int) -> list[list[str]]:
    """Rows of the table of runtimes: network, post-processing, whole."""
    network: Any = model.network

    def prepared(image: Tensor) -> tuple[Tensor, Tensor]:
        return model.preprocess.batch([model.preprocess.normalize(model.preprocess.resize(image))])

    def predictions(pixels: Tensor) -> Predictions:
        return network.branch.head(network.neck(network.backbone(pixels)))

    def time_of(action: Callable[[Any], Any], inputs: list[Any]) -> str:
        return f"{milliseconds(action, inputs, repeats):.2f}"

    ready = [prepared(image) for image in images]
    outputs = [(predictions(pixels), sizes) for pixels, sizes in ready]
    post = network.branch.postprocess
    preparation, after = time_of(prepared, images), time_of(lambda both: post(*both), outputs)
    rows = [["PyTorch", preparation, time_of(lambda both: predictions(both[0]), ready), after]]
    rows[0].append(time_of(lambda image: network.predict(*prepared(image)), images))
    for name, other in networks.items():
        if other.metadata.outputs == "detections":
            parts = [time_of(lambda both, net=other: net.predict(*both), ready), "in the file"]
        else:
            parts = [time_of(lambda both, net=other: net.outputs(net.padded(both[0])), ready), after]
        rows.append(
            [name, preparation, *parts, time_of(lambda image, net=other: net.predict(*prepared(image)), images)]
        )
    literal = (post.score_threshold, post.nms_threshold, post.max_detections)
    loop = time_of(lambda both: class_by_class(*both, *literal), outputs)
    rows.append(["post-processing alone: batched", "", "", after, ""])
    rows.append(["post-processing alone: one NMS a class", "", "", loop, ""])
    return rows


def pictures(pattern: str, limit: int) -> list[Tensor]:
    names = sorted(glob.glob(os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern, recursive=True))
    found = [read_image(Path(name)) for name in names if Path(name).suffix.lower() in SUFFIXES][:limit]
    if not found:
        raise SystemExit(f"no image at {pattern}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="a model file of poise")
    parser.add_argument("--model", default="nanodet_plus_m_320", help="with --weights: the name of the model")
    parser.add_argument("--weights", help="a published checkpoint")
    parser.add_argument("--images", required=True, help="a folder or a pattern; the first 32 are used")
    parser.add_argument("--formats", nargs="*", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if bool(arguments.checkpoint) == bool(arguments.weights):
        parser.error("give either --checkpoint or --weights")
    model = poise.load(arguments.checkpoint) if arguments.checkpoint else poise.create_model(arguments.model)
    if arguments.weights:
        poise.load_published(model, arguments.weights)
    model.eval()
    images = pictures(arguments.images, 32)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        networks = exported(model, images, arguments.formats, arguments.threads, Path(folder))
        rows = table(model, images, networks, arguments.repeats)
    size = f"{model.preprocess.short} x {model.preprocess.long}"
    print(
        f"{model.name}, {size}, batch 1, {arguments.threads} threads, median of {arguments.repeats} calls over ", end=""
    )
    print(f"{len(images)} photographs; load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| runtime | preparation, ms | network, ms | post-processing, ms | whole, ms |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
