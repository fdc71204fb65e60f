"""ONNX files of one-stage models."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.branches import DenseBranch
from poise.detectors import DetectionModel
from poise.export.card import KEY, Card
from poise.export.compare import (
    FULL,
    HALF,
    NOTHING,
    Agreement,
    ExportMismatch,
    Tolerance,
    compare_detections,
    compare_outputs,
)
from poise.export.runtime import Missing, OnnxNetwork, load_onnx, needed

OPSET = 18


class Decoded(nn.Module):
    """(B,3,H,W) normalised pixels to ``boxes`` (B,N,4) px, ``scores`` (B,N,C) and, where it differs, ``gate`` (B,N,C).

    ``gate`` is what the score threshold reads.
    """

    def __init__(self, network: Any, gated: bool) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.gated = network.backbone, network.neck, network.branch.head, gated

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        predictions = self.head(self.neck(self.backbone(pixels)))
        outputs = (predictions.boxes, predictions.scores())
        return (*outputs, predictions.gate()) if self.gated else outputs


def export_onnx(
    model: DetectionModel,
    path: str | os.PathLike[str],
    images: Sequence[Tensor],
    *,
    nms: bool = False,
    dynamic: bool = False,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> Agreement:
    """Write an ONNX file, run it with ONNX Runtime and compare.

    Args:
        model: a one-stage model.
        path: the file, by custom ``*.onnx``; it appears only when the comparison is passed.
        images: RGB (3,H,W) images for the comparison, best with objects that the model knows.
        nms: put thresholding and non-maximum suppression into the file: it then takes one image and gives ``boxes``
            (K,4), ``scores`` and ``labels`` (K,), best first. Of a model that keeps an image's proportions it also
            takes ``size`` (2,), height and width before padding. Otherwise ``boxes`` (B,N,4) and ``scores`` (B,N,C).
        dynamic: accept inputs of any batch, height and width (multiples of the model's divisor).
        precision: of weights and computation; inputs and outputs stay fp32.

    Returns:
        How far the file's results are from the model's.

    Raises:
        ExportMismatch: further than 0.1 px and 0.001 (fp16: 1 px and 0.01); no file is left.
        ValueError: not a one-stage model, no images, or settings that exclude each other.
        ImportError: the extra ``poise[export]`` is not installed.
    """
    needed("onnx", "onnxruntime", "onnxscript")
    if not isinstance(getattr(model.network, "branch", None), DenseBranch):
        raise ValueError(f"'{model.name}' is no one-stage model; only those can be exported")
    if not images:
        raise ValueError("an export is compared with PyTorch on real images: give at least one")
    if nms and dynamic:
        raise ValueError("a file with NMS inside takes one image of a fixed size: leave out nms or dynamic")
    training = model.training
    model.eval()
    try:
        return _write_and_compare(model, Path(path), images, nms, dynamic, precision)
    finally:
        model.train(training)


def _write_and_compare(
    model: DetectionModel, path: Path, images: Sequence[Tensor], nms: bool, dynamic: bool, precision: str
) -> Agreement:
    tolerance = FULL if precision == "fp32" else HALF
    height, width = fixed_size(model)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / path.name
        content = _trace(model, torch.zeros(1 + dynamic, 3, height, width), dynamic)
        if precision == "fp16":
            content = _halved(content)
        if nms:
            content = _with_nms(content, model, height, width)
        _describe(content, Card.of(model, nms))
        file.write_bytes(content.SerializeToString())
        agreement = compare(model, load_onnx(file), images, tolerance)
        if nms and not agreement.compared:
            raise ExportMismatch("the model finds nothing on the images given, so nothing was compared: give others")
        if not agreement.within(tolerance):
            limits = f"{tolerance.boxes:g} px and {tolerance.scores:g}"
            raise ExportMismatch(f"{path}: not written, for it differs from PyTorch ({agreement}; allowed: {limits})")
        os.replace(file, path)
    return agreement


def fixed_size(model: DetectionModel) -> tuple[int, int]:
    """Height and width of an input that holds every image as the model's preprocessing leaves it."""
    prepare = model.preprocess
    sides = (prepare.long, prepare.long) if prepare.keep_ratio else (prepare.short, prepare.long)
    height, width = (-(-side // prepare.divisor) * prepare.divisor for side in sides)
    return height, width


def compare(
    model: DetectionModel, exported: DetectionModel, images: Sequence[Tensor], tolerance: Tolerance
) -> Agreement:
    """Both on the same prepared images, padded to the exported file's size; one of any size sees a larger one too."""
    network = exported.network
    assert isinstance(network, OnnxNetwork)
    result = NOTHING
    for number, image in enumerate(images):
        pixels, sizes = model.preprocess.batch([model.preprocess.normalize(model.preprocess.resize(image))])
        if network.any_size and number == 0:
            step = model.preprocess.divisor
            larger = functional.pad(pixels, (0, 2 * step, 0, step)).repeat(2, 1, 1, 1)
            result = result.joined(_compared(model, exported, larger, sizes.repeat(2, 1), tolerance))
        result = result.joined(_compared(model, exported, network.padded(pixels), sizes, tolerance))
    return result


@torch.no_grad()
def _compared(
    model: DetectionModel, exported: DetectionModel, pixels: Tensor, sizes: Tensor, tolerance: Tolerance
) -> Agreement:
    network: Any = exported.network
    threshold = network.card.postprocess.score
    if network.card.nms_inside:
        ours, theirs = (one.detect(pixels, sizes)[0] for one in (model, exported))
        return compare_detections(ours, theirs, threshold, tolerance)
    decoded = Decoded(model.network, network.gated)(pixels)
    outputs = network.outputs(pixels)
    return compare_outputs(dict(zip(outputs, decoded, strict=True)), outputs, threshold)


def _trace(model: DetectionModel, pixels: Tensor, dynamic: bool) -> Any:
    """The ONNX graph of :class:`Decoded` for inputs like ``pixels``."""
    with torch.no_grad():
        sample = model.network.branch.head(model.network.neck(model.network.backbone(pixels)))  # type: ignore[operator,union-attr]
        gated = not torch.equal(sample.gate(), sample.scores())
    free = torch.export.Dim.DYNAMIC
    names = ["boxes", "scores", *(["gate"] if gated else [])]
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter's own use of deprecated calls
        program = torch.onnx.export(
            Decoded(model.network, gated).eval(),
            (pixels,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=names,
            dynamic_shapes=({0: free, 2: free, 3: free},) if dynamic else None,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _quiet:
    """Keeps the exporter's log messages back."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(logging.NOTSET)


def _halved(content: Any) -> Any:
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise Missing("onnxruntime's transformers tools") from error
    return convert_float_to_float16(content, keep_io_types=True, disable_shape_infer=True)


def _with_nms(content: Any, model: DetectionModel, height: int, width: int) -> Any:
    from poise.export.suppression import append_suppression

    post = model.network.branch.postprocess  # type: ignore[union-attr]
    return append_suppression(content, post, None if model.preprocess.keep_ratio else (height, width))  # type: ignore[arg-type]


def _describe(content: Any, card: Card) -> None:
    entry = content.metadata_props.add()
    entry.key, entry.value = KEY, card.to_text()
