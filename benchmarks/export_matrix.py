"""Every model in every format: how far its file is from PyTorch, its size, and how long the export took.

    python benchmarks/export_matrix.py nanodet_plus_m_320=nanodet-plus-m_320.pth --images "photos/*.jpg" \
        --calibrate "others/*.jpg" --formats onnx openvino ncnn executorch --precisions fp32 fp16 int8
    python benchmarks/export_matrix.py atss_r18_fpn fcos_r18_fpn --size 128 --images "photos/*.jpg"
    python benchmarks/export_matrix.py runs/*/best.pt --images "photos/*.jpg" --forms decoded nms
    python benchmarks/export_matrix.py --matrix docs/export.md --record matrix.json --models-from FOLDER \\
        --images "photos/*.jpg" --calibrate "others/*.jpg"

The last form exports a small network of every family to every runtime and writes the table between the marks of the
page. FOLDER may have NAME.pt, a trained model of a family. Each result is recorded at once, so a run may go on.

Names that end in .pt are model files of poise. One-stage models without weights are random; their class layers are
scaled so that scores of all sizes occur. Prints a Markdown table, row by row; what is refused, or fails the comparison,
is a row with the reason.
"""

from __future__ import annotations

import argparse
import glob
import json
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

DENSE = (
    "retinanet", "libra_retinanet", "fcos", "atss", "gfl", "gflv2", "foveabox", "reppoints", "tood", "autoassign",
    "freeanchor", "paa", "ota", "yolox", "dw", "vfnet",
)  # fmt: skip
REGIONS = ("faster_rcnn_r18_fpn", "fast_rcnn_r18_fpn", "libra_faster_rcnn_r18_fpn")
QUERIES = (
    "deformable_detr_r18", "deformable_detr_twostage_r18", "h_deformable_detr_r18", "conditional_detr_r18",
    "dab_detr_r18", "dino_r18", "group_dino_r18", "co_deformable_detr_r18", "co_dino_r18",
)  # fmt: skip
FAMILIES = (*REGIONS, *QUERIES, "nanodet_plus_m_320", *(f"{name}_r18_fpn" for name in DENSE))
COLUMNS: dict[str, dict[str, Any]] = {
    **{name: {"format": name} for name in FORMATS},
    "onnx, any batch and size": {"format": "onnx", "dynamic": True},
    "openvino, any batch and size": {"format": "openvino", "dynamic": True},
    "onnx, NMS or top-k inside": {"format": "onnx", "nms": True},
    "openvino, NMS or top-k inside": {"format": "openvino", "nms": True},
    "onnx, fp16": {"format": "onnx", "precision": "fp16"},
    "openvino, fp16": {"format": "openvino", "precision": "fp16"},
    "onnx, int8": {"format": "onnx", "precision": "int8"},
    "openvino, int8": {"format": "openvino", "precision": "int8"},
}
START, END = "<!-- export matrix: benchmarks/export_matrix.py --matrix -->", "<!-- end of the export matrix -->"


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


def family(name: str, folder: Path | None) -> DetectionModel:
    """The model of ``folder``, or a small one with random weights whose scores differ."""
    if folder is not None and (folder / f"{name}.pt").is_file():
        return poise.load(folder / f"{name}.pt")
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "test_resnet", "channels": 32, "depth": 1}
    if name in REGIONS:
        options = {"backbone": "test_resnet", "channels": 32, "hidden": 64}
    if name in QUERIES:
        options = {"backbone": "test_resnet", "channels": 32, "hidden": 64, "attention_heads": 4, "queries": 20}
        options |= {"encoder_layers": 1, "decoder_layers": 2}
        options |= {"auxiliary_heads": "atss"} if name.startswith("co_") else {}
        options |= {"one_to_many_queries": 10} if name.startswith("h_") else {}
        options |= {"query_groups": 2} if name.startswith("group_") else {}
    if name.startswith("nanodet"):
        options = {"backbone": "shufflenetv2_0.5x", "channels": 32, "depth": 1}
    if name.startswith("reppoints"):
        options["depth"] = 2
    model = poise.create_model(name, num_classes=3, image_size=96, **options).eval()
    for key, parameter in model.named_parameters():
        if key.endswith(("classes.weight", "objectness.weight")):
            parameter.data.normal_(0, 0.5)
        elif name not in (*REGIONS, *QUERIES) and "classes" in key:
            parameter.data.normal_(0, 1) if parameter.ndim > 1 else parameter.data.fill_(-2.5)
    return model


def cell(model: DetectionModel, images: list[Tensor], calibration: list[Tensor], settings: dict[str, Any]) -> str:
    """The largest differences of boxes in px and of scores, or why there is no file."""
    settings = {"precision": "fp32", **settings}
    if settings["precision"] != "fp32":
        settings["min_agreement"] = 0.5
    used = calibration if settings["precision"] == "int8" else []
    with tempfile.TemporaryDirectory() as folder:
        path = default_path(Path(folder) / "model.pt", settings["format"])
        try:
            found = export_model(model, path, images, calibration=used, **settings)
        except ImportError:
            return "not installed"
        except (ValueError, RuntimeError) as error:
            text = str(error).splitlines()[0].replace(str(path), path.name).replace("|", "/")
            return f"refused: {text}"
    typical = f"; {found.matched_fraction:.0%} agree, median {found.typical.boxes:g} px" if found.typical else ""
    return f"{found.boxes:.2g} / {found.scores:.2g}{typical}"


def matrix(arguments: argparse.Namespace, images: list[Tensor], calibration: list[Tensor]) -> None:
    """Export every family in every column, and write the table of what the record has into the page."""
    record = Path(arguments.record)
    cells: dict[str, dict[str, str]] = json.loads(record.read_text()) if record.is_file() else {}
    for column in arguments.columns or COLUMNS:
        for name in arguments.models or FAMILIES:
            settings = COLUMNS[column]
            if name not in (*REGIONS, *QUERIES) and settings.keys() != {"format"}:
                continue  # one-stage models have a table of precisions of their own
            if column in cells.get(name, {}):
                continue
            start, model = time.perf_counter(), family(name, arguments.models_from)
            cells.setdefault(name, {})[column] = cell(model, images, calibration, settings)
            record.write_text(json.dumps(cells, indent=1))
            print(f"{name}, {column}: {cells[name][column]} ({time.perf_counter() - start:.0f} s)", flush=True)
    page = Path(arguments.matrix)
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n\n{tables(cells)}\n\n{END}{after}", encoding="utf-8")


def tables(cells: dict[str, dict[str, str]]) -> str:
    """Markdown tables of four columns each; equal refusals are named below by their letter."""
    reasons: dict[str, str] = {}

    def shown(name: str, column: str) -> str:
        text = cells.get(name, {}).get(column, "–")
        if not text.startswith("refused: "):
            return text
        reason = text.removeprefix("refused: ").replace(f"'{name}'", "the model")
        return f"refused ({reasons.setdefault(reason, chr(97 + len(reasons)))})"

    parts, columns = [], list(COLUMNS)
    for first in range(0, len(columns), 4):
        group = columns[first : first + 4]
        rows = [name for name in FAMILIES if any(column in cells.get(name, {}) for column in group)]
        if not rows:
            continue
        lines = ["| model | " + " | ".join(group) + " |", "|---" * (1 + len(group)) + "|"]
        lines += [f"| `{name}` | " + " | ".join(shown(name, column) for column in group) + " |" for name in rows]
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- ({letter}) {reason}" for reason, letter in reasons.items()))
    return "\n\n".join(parts).rstrip()


def pictures(pattern: str, limit: int) -> list[Tensor]:
    return [read_image(Path(name)) for name in sorted(glob.glob(pattern, recursive=True))[:limit]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", help="NAME, NAME=WEIGHTS (a published checkpoint), or a model file of poise"
    )
    parser.add_argument("--images", required=True, help="a pattern; the first 8 are compared")
    parser.add_argument("--calibrate", default="", help="a pattern; the first 64 calibrate int8")
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"], choices=list(FORMATS))
    parser.add_argument("--precisions", nargs="+", default=["fp32"], choices=["fp32", "fp16", "int8"])
    parser.add_argument("--forms", nargs="+", default=["decoded"], choices=["decoded", "nms", "raw", "dynamic"])
    parser.add_argument("--size", type=int, help="image size; by default the model's own")
    parser.add_argument("--min-agreement", type=float, help="for fp16 and int8: share of detections that must agree")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--matrix", help="the page into which the matrix of all families is written")
    parser.add_argument("--record", default="export_matrix.json", help="with --matrix: the results until now")
    parser.add_argument("--models-from", type=Path, help="with --matrix: a folder with trained models, NAME.pt")
    parser.add_argument("--columns", nargs="*", choices=list(COLUMNS), help="with --matrix: some of its columns")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = pictures(arguments.images, 8)
    calibration = pictures(arguments.calibrate, 64)
    if arguments.matrix:
        matrix(arguments, images[:4], calibration[:16])
        return
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
