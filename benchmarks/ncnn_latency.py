"""Latency of an ncnn file through poise, against the same file driven by ncnn's Python API with NumPy around it.

    python benchmarks/ncnn_latency.py --file nanodet.ncnn.param --images photos [--threads 1] [--rounds 5]
                                      [--clock wall] [--json FILE]

``poise export`` writes such a file of NanoDet-Plus; its network takes 320 x 320 pixels and has boxes and scores as
outputs. Images are decoded before; every side makes boxes, scores and labels of each, image by image in turn. The NumPy
side resizes and normalizes with prepared indices, and does one NMS of all classes in a loop over boxes. With PyAV
installed, a video of the photographs goes through ``Detector.predict`` too: decoding, detection and results.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from cpu_latency import pictures
from torch import Tensor

import poise
from poise.export import load_exported
from poise.inference.video import write_video

SCORE, OVERLAP, MOST = 0.05, 0.6, 100  # of NanoDet-Plus


def numpy_detector(file: Path, threads: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A call: image (H,W,3) uint8 RGB -> boxes (n,4), scores (n,), labels (n,)."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(file))
    net.load_model(str(file.with_suffix(".bin")))
    prepare = load_exported(file).preprocess
    mean, std = (np.array(values, np.float32) for values in (prepare.mean, prepare.std))

    def axis(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = np.arange(wanted, dtype=np.float32) * (length / wanted)
        first = position.astype(np.int64)
        return first, np.minimum(first + 1, length - 1), position - first

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        top, bottom, down = axis(height, prepare.short)
        left, right, over = axis(width, prepare.long)
        rows = image[top] * (1 - down)[:, None, None] + image[bottom] * down[:, None, None]
        resized = rows[:, left] * (1 - over)[:, None] + rows[:, right] * over[:, None]
        pixels = np.ascontiguousarray(((np.rint(resized)[..., ::-1] - mean) / std).transpose(2, 0, 1), np.float32)
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(pixels).clone())
        boxes, scores = (np.array(extractor.extract(name)[1]) for name in ("out0", "out1"))
        chosen, labels = np.nonzero(scores > SCORE)
        values = scores[chosen, labels]
        order = np.argsort(-values)[:1000]
        boxes, values, labels = boxes[chosen[order]], values[order], labels[order]
        keep = suppress(boxes + labels[:, None] * 4096.0)
        scale = np.array([width / prepare.long, height / prepare.short] * 2, np.float32)
        return boxes[keep] * scale, values[keep], labels[keep]

    return detect


def suppress(boxes: np.ndarray) -> list[int]:
    """Positions that NMS keeps of boxes in the order of their scores."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < MOST:
        first, left = left[0], left[1:]
        kept.append(int(first))
        low, high = np.maximum(boxes[first, :2], boxes[left, :2]), np.minimum(boxes[first, 2:], boxes[left, 2:])
        inside = np.clip(high - low, 0, None).prod(1)
        left = left[inside <= OVERLAP * (areas[first] + areas[left] - inside)]
    return kept


def video_rate(detector: poise.Detector, images: list[Tensor], clock: Callable[[], float]) -> float:
    """Frames a second of a video through ``predict``, the first ten left out."""
    from PIL import Image

    frames = [Image.fromarray(image.permute(1, 2, 0).numpy()).resize((640, 480)) for image in images] * 4
    with tempfile.TemporaryDirectory() as folder:
        write_video(frames, Path(folder) / "video.mp4", Fraction(25))
        results = detector.predict(str(Path(folder) / "video.mp4"), stream=True, score_threshold=0.3)
        start, count = 0.0, 0
        for count, _ in enumerate(results, 1):
            if count == 10:
                start = clock()
        return (count - 10) / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=list(record.CLOCKS), default="wall")
    record.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock, images = record.CLOCKS[options.clock], pictures(options.images, 32)
    detector = poise.Detector(load_exported(options.file, options.threads), "cpu")
    plain = numpy_detector(options.file, options.threads)
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    sides: dict[str, Callable[[int], Any]] = {
        "poise.Detector.predict": lambda i: detector.predict(images[i], score_threshold=SCORE),
        "ncnn and NumPy": lambda i: plain(arrays[i]),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    same = 0
    for number in record.track(range(options.rounds)):
        for i in range(len(images)):
            found = {}
            for name, call in sides.items():
                start = clock()
                found[name] = call(i)
                times[name] += [clock() - start] if number else []  # the first round warms up
            (result,), (_, scores, _) = found.values()
            same += abs(len(result.scores) - len(scores)) <= 1 and bool(
                len(scores) == 0 or abs(float(result.scores.max()) - scores.max()) < 0.02
            )
    own, other = (1e3 * statistics.median(values) for values in times.values())
    print(f"poise {own:.2f} ms, ncnn and NumPy {other:.2f} ms, ratio {other / own:.2f}")
    print(f"as many objects (within 1) and the same best score: {same} of {options.rounds * len(images)} images")
    rows: list[record.Row] = [{"case": "image", "poise_ms": own, "numpy_ms": other, "ratio": other / own}]
    if importlib.util.find_spec("av") is not None:
        rate = video_rate(detector, images, clock)
        print(f"video: {rate:.1f} frames a second")
        rows.append({"case": "video", "frames_per_s": rate})
    record.write(options.json, "ncnn_latency", options, rows)


if __name__ == "__main__":
    main()
