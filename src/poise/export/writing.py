"""Export: write a file, run it with its own runtime, compare, and only then put it in its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from poise.detectors import DetectionModel
from poise.export.compare import (
    CONFIDENT,
    FULL,
    HALF,
    NOTHING,
    OVERLAP,
    DetectionMatcher,
    ExportComparison,
    ExportMismatch,
    compare_detections,
    compare_outputs,
)
from poise.export.formats import FORMATS, Format
from poise.export.graph import metadata_of, one_stage
from poise.export.metadata import ExportMetadata, Outputs, Precision
from poise.export.plan import Plan
from poise.export.runtime import ExportedNetwork, load_exported
from poise.postprocess import PostProcess


def export_model(
    model: DetectionModel,
    path: str | os.PathLike[str],
    images: Sequence[Tensor],
    *,
    format: str = "onnx",
    nms: bool = False,
    raw: bool = False,
    dynamic: bool = False,
    precision: Precision = "fp32",
    calibration: Sequence[Tensor] = (),
    min_agreement: float | None = None,
) -> ExportComparison:
    """Write a file for another runtime, run it there and compare.

    Args:
        model: a one-stage model.
        path: the file (``*.onnx``, ``*.xml``, ``*.param``, ``*.pte``); it appears only when the comparison is passed.
        images: RGB (3,H,W) images for the comparison, best with objects that the model knows.
        format: ``"onnx"``, ``"openvino"``, ``"ncnn"`` or ``"executorch"``.
        nms: put thresholding and non-maximum suppression into the file: it then takes one image and gives ``boxes``
            (K,4), ``scores`` and ``labels`` (K,), best first. Of a model that keeps an image's proportions it also
            takes ``size`` (2,), height and width before padding. Otherwise ``boxes`` (B,N,4) and ``scores`` (B,N,C).
        raw: leave decoding out too: ``head_0``, ``head_1`` … (B,N,·) are the joined outputs of the head's layers.
        dynamic: accept inputs of any batch, height and width (multiples of the model's divisor).
        precision: of weights and computation; inputs and outputs stay fp32.
        calibration: for int8: images like those that the file will see, some dozens.
        min_agreement: for fp16 and int8, replaces the limits below: the fraction of detections with a score of at
            least 0.3, in either result, that must have a counterpart of the same class with an IoU of at least 0.7.

    Returns:
        How far the file's results are from the model's.

    Raises:
        ExportMismatch: further than 0.1 px and 0.001 (fp16, int8: 1 px and 0.01) or ``min_agreement``; no file is left.
        ValueError: not a one-stage model, no images, or settings that exclude each other or that the format refuses.
        ImportError: the extra for the format is not installed.
    """
    kind = FORMATS.get(format)
    if kind is None:
        raise ValueError(f"format={format!r}: one of {', '.join(FORMATS)}")
    network, path = one_stage(model), Path(path)
    _check(kind, path, images, nms, raw, dynamic, precision, calibration, min_agreement)
    if nms and (type(network.branch.postprocess) is not PostProcess or network.branch.postprocess.voting_sigma):
        raise ValueError(
            f"the post-processing of '{model.name}' is more than threshold and NMS and cannot be put into a file: "
            "leave out nms, then poise does it after the file"
        )
    kind.check({"nms": nms, "dynamic": dynamic, precision: True})
    outputs: Outputs = "detections" if nms else "raw" if raw else "decoded"
    training = model.training
    model.eval()
    try:
        metadata = metadata_of(model, outputs, dynamic, precision)
        plan = Plan(model, metadata, [_prepared(model, metadata, image)[0] for image in calibration])
        return _write_and_compare(plan, kind, path, images, min_agreement)
    finally:
        model.train(training)


def _check(
    kind: Format,
    path: Path,
    images: Sequence[Tensor],
    nms: bool,
    raw: bool,
    dynamic: bool,
    precision: str,
    calibration: Sequence[Tensor],
    min_agreement: float | None,
) -> None:
    if precision not in ("fp32", "fp16", "int8"):
        raise ValueError(f"precision={precision!r}: one of fp32, fp16, int8")
    if path.suffix != kind.suffix:
        raise ValueError(f"{path}: {kind.name} files end in {kind.suffix}")
    if not len(images):
        raise ValueError("an export is compared with PyTorch on real images: give at least one")
    if nms and raw:
        raise ValueError("a file gives either detections or the raw outputs of the head: leave out nms or raw")
    if nms and dynamic:
        raise ValueError("a file with NMS inside takes one image of a fixed size: leave out nms or dynamic")
    if (precision == "int8") != bool(len(calibration)):
        raise ValueError("int8 needs images for its calibration (--calibrate PATH), and nothing else takes them")
    if min_agreement is not None and (precision == "fp32" or not 0 < min_agreement <= 1):
        raise ValueError("min_agreement is a share in (0,1], for fp16 and int8: fp32 keeps its limits")


def _write_and_compare(
    plan: Plan, kind: Format, path: Path, images: Sequence[Tensor], min_agreement: float | None
) -> ExportComparison:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / path.name
        kind.module().write(plan, file)
        exported = load_exported(file)
        by_overlap = min_agreement is not None or plan.metadata.precision == "int8"
        agreement = (counterparts if by_overlap else compare)(plan.model, exported, images)
        _judge(agreement, plan.metadata, path, min_agreement)
        _put(kind.files(file), kind.files(path))
    return agreement


def _put(written: Sequence[Path], wanted: Sequence[Path]) -> None:
    """Move the files to their place, the one that names the others last."""
    if len(wanted) > 1:
        wanted[0].unlink(missing_ok=True)  # an older export is not seen with newer parts
    for source, target in reversed(list(zip(written, wanted, strict=True))):
        os.replace(source, target)


def _judge(agreement: ExportComparison, metadata: ExportMetadata, path: Path, min_agreement: float | None) -> None:
    """Raise ``ExportMismatch`` for a file that is not to be left behind."""
    if not agreement.compared:
        raise ExportMismatch("the model finds nothing on the images given, so nothing was compared: give others")
    tolerance = FULL if metadata.precision == "fp32" else HALF
    if min_agreement is None and not agreement.within(tolerance):
        hint = (
            ""
            if metadata.precision == "fp32"
            else "; --min-agreement SHARE asks for counterparts of the detections instead"
        )
        if metadata.precision == "int8":
            hint += f" (here {agreement.share:.1%} from {CONFIDENT} on have one of their class and IoU {OVERLAP})"
        raise ExportMismatch(
            f"{path}: not written, for it differs from PyTorch ({agreement}; allowed: {tolerance}){hint}"
        )
    if min_agreement is not None and agreement.share < min_agreement:
        raise ExportMismatch(f"{path}: not written, {agreement.share:.1%} of the detections agree ({agreement})")


def compare(model: DetectionModel, exported: DetectionModel, images: Sequence[Tensor]) -> ExportComparison:
    """Both on the same prepared images, padded to the exported file's size; one of any size sees a larger one too."""
    network = exported.network
    assert isinstance(network, ExportedNetwork)
    result = NOTHING
    for number, image in enumerate(images):
        pixels, sizes = _prepared(model, network.metadata, image)
        if network.metadata.size is None and number == 0:
            step = model.preprocess.divisor
            larger = functional.pad(pixels, (0, 2 * step, 0, step)).repeat(2, 1, 1, 1)
            result = result.joined(_compared(model, exported, larger, sizes.repeat(2, 1)))
        result = result.joined(_compared(model, exported, pixels, sizes))
    return result


@torch.no_grad()
def counterparts(model: DetectionModel, exported: DetectionModel, images: Sequence[Tensor]) -> ExportComparison:
    """Confident detections of both, matched by class and overlap."""
    network: Any = exported.network
    found = DetectionMatcher()
    for image in images:
        pixels, sizes = _prepared(model, network.metadata, image)
        found.add(model.detect(pixels, sizes)[0], exported.detect(pixels, sizes)[0])
    return found.agreement()


def _prepared(model: DetectionModel, metadata: ExportMetadata, image: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (1,3,H,W) of the file's size, where that is fixed, and the size before padding."""
    prepare = model.preprocess
    pixels, sizes = prepare.batch([prepare.normalize(prepare.resize(image))])
    if metadata.size is not None:
        pixels = functional.pad(pixels, (0, metadata.size[1] - pixels.shape[3], 0, metadata.size[0] - pixels.shape[2]))
    return pixels, sizes


@torch.no_grad()
def _compared(model: DetectionModel, exported: DetectionModel, pixels: Tensor, sizes: Tensor) -> ExportComparison:
    network: Any = exported.network
    ours: Any = model.network
    metadata = network.metadata
    threshold = metadata.postprocess.score_threshold
    if metadata.outputs == "detections":
        tolerance = FULL if metadata.precision == "fp32" else HALF
        found, theirs = (one.detect(pixels, sizes)[0] for one in (model, exported))
        return compare_detections(found, theirs, threshold, tolerance)
    decoded: Any = ours.branch.head(ours.neck(ours.backbone(pixels)))
    here, there = ({"boxes": p.boxes, "scores": p.scores()} for p in (decoded, network.predictions(pixels)))
    return compare_outputs(here, there, threshold)
