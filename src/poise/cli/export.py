"""``poise export``: a trained model as a file for another runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Arguments:
    """Export a one-stage model: poise export CHECKPOINT

    The file is run with its own runtime and compared with PyTorch; it is left behind only if both agree.
    ``poise predict FILE.onnx IMAGE`` then works as with a checkpoint.
    """

    checkpoint: Positional[str]
    """A model file (best.pt, last.pt) or a run folder, of which the best weights are taken."""
    out: Path | None = None
    """The file to write; by default the checkpoint's name with .onnx."""
    format: Literal["onnx"] = "onnx"
    """The kind of file."""
    images: tuple[str, ...] = ()
    """Images, folders or globs for the comparison (the first 8 are used); by default generated scenes."""
    nms: bool = False
    """Put score threshold and NMS into the file: it then gives the detections of one image."""
    dynamic: bool = False
    """Accept any batch, height and width (multiples of 32) instead of one fixed size."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of weights and computation."""


MOST_IMAGES = 8


def run(arguments: Arguments) -> int:
    """Export, compare, say what came of it."""
    from poise.export import export_onnx
    from poise.models.files import find_model_file, load_model

    model = load_model(arguments.checkpoint)
    found = find_model_file(arguments.checkpoint)
    path = arguments.out or found.with_suffix(f".{arguments.format}")
    path.parent.mkdir(parents=True, exist_ok=True)
    images = _images(arguments.images) if arguments.images else _scenes()
    agreement = export_onnx(
        model, path, images, nms=arguments.nms, dynamic=arguments.dynamic, precision=arguments.precision
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; compared with PyTorch: {agreement}")
    return 0


def _images(sources: tuple[str, ...]) -> list[Tensor]:
    from itertools import chain, islice

    from poise.inference import frames_of

    frames = chain.from_iterable(frames_of(source, "error") for source in sources)
    return [frame.image for frame in islice(frames, MOST_IMAGES)]


def _scenes() -> list[Tensor]:
    import numpy as np
    import torch

    from poise.data.demo.scenes import demo_scene

    rng = np.random.default_rng(0)
    return [torch.from_numpy(np.array(demo_scene(rng).image)).permute(2, 0, 1) for _ in range(4)]
