"""Every model in every format: how far its file is from PyTorch, its size, and how long the export took.

    python benchmarks/export_matrix.py nanodet_plus_m_320=nanodet-plus-m_320.pth --images "photos/*.jpg" \
        --calibrate "others/*.jpg" --formats onnx openvino ncnn executorch --precisions fp32 fp16 int8
    python benchmarks/export_matrix.py atss_r18_fpn fcos_r18_fpn --size 128 --images "photos/*.jpg"
    python benchmarks/export_matrix.py runs/*/best.pt --images "photos/*.jpg" --forms decoded nms

Names that end in .pt are model files of poise. One-stage models without weights are random; their class layers are
scaled so that scores of all sizes occur. Prints a Markdown table, row by row; what is refused, or fails the comparison,
is a row with the reason.
"""

from __future__ import annotations

import argparse
import glob
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import poise
from poise.data.images import read_image
from poise.detection_model import DetectionModel
from poise.export import FORMATS, default_path, export_model


@torch.no_grad()
def enliven(model: DetectionModel, images: list[Tensor]) -> None:
    """Scale the layers that give classes until logits spread by 2 around the threshold."""
    network: Any = model.network
    pixels, _ = model.preprocess.batch([model.preprocess.normalize(model.preprocess.resize(images[0]))])

    def logits() -> Tensor:
        return network.branch.head(network.neck(network.backbone(pixels))).logits

    factor = 2 / float(logits().std())
    for name, parameter in network.branch.head.named_parameters():
        if "classes" in name and parameter.ndim > 1:
            parameter.mul_(factor)
    offset = -3 - float(logits().mean())
    for name, parameter in network.branch.head.named_parameters():
        if "classes" in name and parameter.ndim == 1:
            parameter.add_(offset)


def built(name: str, weights: str, size: int | None, images: list[Tensor]) -> DetectionModel:
    if name.endswith(".pt"):
        return poise.load(name)
    torch.manual_seed(0)
    model = poise.create_model(name, image_size=size)
    if weights:
        poise.load_published(model, weights)
    else:
        enliven(model.eval(), images)
    return model.eval()


def row(model: DetectionModel, images: list[Tensor], calibration: list[Tensor], settings: dict[str, Any]) -> str:
    """One line of the table."""
    kind, precision = settings["format"], settings["precision"]
    form = next((word for word in ("nms", "raw", "dynamic") if settings.get(word)), "decoded")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = default_path(Path(folder) / "model.pt", kind)
        used = calibration if precision == "int8" else []
        try:
            found = export_model(model, path, images, calibration=used, **settings)
            size = sum(file.stat().st_size for file in FORMATS[kind].files(path)) / 1e6
            typical = f" (median {found.typical.boxes:g})" if found.typical else ""
            off = f" (median {found.typical.scores:g})" if found.typical else ""
            share = f"{found.matched_fraction:.1%}" if found.typical else "all"
            cells = [f"{found.boxes:.2g}{typical}", f"{found.scores:.2g}{off}", share, f"{size:.1f}"]
        except (ValueError, ImportError) as error:
            text = str(error).replace(str(path), path.name).replace("|", "/")
            cells = [f"refused: {text}", "", "", ""]
    seconds = f"{time.perf_counter() - start:.0f}"
    return " | ".join(["", model.name, kind, precision, form, *cells, seconds, ""]).strip()


def pictures(pattern: str, most: int) -> list[Tensor]:
    return [read_image(Path(name)) for name in sorted(glob.glob(pattern, recursive=True))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="+", help="NAME, NAME=WEIGHTS (a published checkpoint), or a model file of poise"
    )
    parser.add_argument("--images", required=True, help="a pattern; the first 8 are compared")
    parser.add_argument("--calibrate", default="", help="a pattern; the first 64 calibrate int8")
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"], choices=list(FORMATS))
    parser.add_argument("--precisions", nargs="+", default=["fp32"], choices=["fp32", "fp16", "int8"])
    parser.add_argument("--forms", nargs="+", default=["decoded"], choices=["decoded", "nms", "raw", "dynamic"])
    parser.add_argument("--size", type=int, help="image size; by default the model's own")
    parser.add_argument("--min-agreement", type=float, help="for fp16 and int8: share of detections that must agree")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = pictures(arguments.images, 8)
    calibration = pictures(arguments.calibrate, 64)
    print("| model | format | precision | file gives | boxes, px | scores | detections that agree | MB | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for entry in arguments.models:
        name, _, weights = entry.partition("=")
        model = built(name, weights, arguments.size, images)
        for kind in arguments.formats:
            for precision in arguments.precisions:
                for form in arguments.forms:
                    settings: dict[str, Any] = {"format": kind, "precision": precision}
                    settings |= {} if form == "decoded" else {form: True}
                    settings |= {} if precision == "fp32" else {"min_agreement": arguments.min_agreement}
                    print(row(model, images, calibration, settings), flush=True)


if __name__ == "__main__":
    main()
