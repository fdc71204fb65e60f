"""``poise export``: export a trained model to another runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from poise.cli.help import CommandHelp
from poise.cli.progress import elapsed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Arguments:
    """Export a detector: poise export CHECKPOINT

    The file is run with its runtime and compared with PyTorch, and it is kept only if both agree.
    poise predict and poise eval accept the file like a checkpoint.
    """

    checkpoint: Positional[str]
    """A model file (best.pt, last.pt), a run folder (its best weights), or a model's name with --weights."""
    weights: str | None = None
    """Weights of a named model: coco, demo, a file, a run or hf://owner/name. coco is the published checkpoint,
    which is fetched; the original's name of another one is accepted, too."""
    out: Path | None = None
    """The file to write; by default the path of the checkpoint, or the name of the model in this folder, with .onnx,
    .xml, .ncnn.param or .pte."""
    format: Literal["onnx", "openvino", "ncnn", "executorch"] = "onnx"
    """The file format."""
    images: tuple[str, ...] = ()
    """Images, folders or globs for the comparison (the first 8 are used); by default generated scenes."""
    nms: bool = False
    """Include the post-processing (threshold and NMS; of query detectors top-k): the file returns detections."""
    raw: bool = False
    """Exclude decoding: the file returns the outputs of the head's layers (one-stage models)."""
    dynamic: bool = False
    """Accept any batch size, height and width (multiples of 32) instead of one fixed size."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Precision of weights and computation."""
    calibrate: tuple[str, ...] = ()
    """For int8: images, folders or globs like those of the application (the first 128 are used)."""
    min_agreement: float | None = None
    """For fp16 and int8: fraction of the detections that must agree, instead of the limits of 1 px and 0.01."""


MAX_IMAGES = 8
MAX_CALIBRATION = 128


HELP = CommandHelp(
    usual=("format", "out", "weights", "images", "precision", "calibrate", "nms", "raw", "dynamic"),
    examples=(
        "poise export runs/atss_r18_fpn                                    # ONNX",
        "poise export runs/atss_r18_fpn --format openvino --precision int8 --calibrate photos/",
        "poise predict runs/atss_r18_fpn/best.onnx photos/",
    ),
)


def run(arguments: Arguments) -> int:
    """Export, compare, and print the result."""
    from poise.api.opening import open_model
    from poise.export import FORMATS, default_path, export_model

    opened = open_model(arguments.checkpoint, arguments.weights)
    if not opened.trained:
        raise ValueError(f"'{arguments.checkpoint}' has random weights: give --weights FILE, or a model file")
    checkpoint = opened.file if arguments.weights is None else None
    path = arguments.out or default_path(checkpoint or Path(f"{opened.model.name}.pt"), arguments.format)
    path.parent.mkdir(parents=True, exist_ok=True)
    with elapsed(f"writing {path} and comparing it with PyTorch"):
        agreement = export_model(
            opened.model,
            path,
            _images(arguments.images, MAX_IMAGES) if arguments.images else _scenes(),
            format=arguments.format,
            nms=arguments.nms,
            raw=arguments.raw,
            dynamic=arguments.dynamic,
            precision=arguments.precision,
            calibration=_images(arguments.calibrate, MAX_CALIBRATION),
            min_agreement=arguments.min_agreement,
        )
    size = sum(file.stat().st_size for file in FORMATS[arguments.format].files(path))
    print(f"{path}: {size / 1e6:.1f} MB; compared with PyTorch: {agreement}")
    return 0


def _images(sources: tuple[str, ...], limit: int) -> list[Tensor]:
    from itertools import chain, islice

    from poise.inference import frames_of

    frames = chain.from_iterable(frames_of(source, "error") for source in sources)
    return [frame.image for frame in islice(frames, limit)]


def _scenes() -> list[Tensor]:
    import numpy as np
    import torch

    from poise.data.demo.scenes import demo_scene

    rng = np.random.default_rng(0)
    return [torch.from_numpy(np.array(demo_scene(rng).image)).permute(2, 0, 1) for _ in range(4)]
