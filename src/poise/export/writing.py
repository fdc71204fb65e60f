"""Write a file, run it with its runtime, compare it with PyTorch, and only then move it to its path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from poise.detection_model import DetectionModel
from poise.detectors.parts import has_distinct_queries, has_one_to_one
from poise.export.compare import (
    CONFIDENT,
    EMPTY,
    FULL,
    HALF,
    OVERLAP,
    DetectionMatcher,
    ExportComparison,
    ExportMismatch,
    compare_detections,
    compare_outputs,
)
from poise.export.formats import FORMATS, Format
from poise.export.graph import dense_network, kind_of, metadata_of, postprocess_of, traced_inputs
from poise.export.metadata import ExportMetadata, Outputs, Precision
from poise.export.plan import Plan
from poise.export.runtime import exported_network, load_exported
from poise.models.roles import without_training_parts
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
    """Export a model to another runtime and compare the results.

    Args:
        model: a detector; proposals of Fast R-CNN are an input of the file. Of a model with a one-to-one branch that
            branch alone is exported.
        path: the file (``*.onnx``, ``*.xml``, ``*.param``, ``*.pte``); it appears only if the comparison succeeds.
        images: RGB (3,H,W) images for the comparison, preferably with objects of the model's classes.
        format: ``"onnx"``, ``"openvino"``, ``"ncnn"`` or ``"executorch"``.
        nms: include score threshold and non-maximum suppression. A file of a one-stage model takes one image and
            returns ``boxes`` (K,4), ``scores`` and ``labels`` (K,), best first. If it keeps the aspect ratio, it has a
            second input ``size`` (2,), height and width before padding. Of a model without NMS the file has a top-k in
            its place. Without ``nms`` the outputs are ``boxes`` (B,N,4) and ``scores`` (B,N,C). For two-stage and query
            detectors see docs/export.md.
        raw: exclude decoding: ``head_0``, ``head_1``, … (B,N,·) are the concatenated outputs of the head's layers.
        dynamic: accept any batch size, height and width (multiples of the model's divisor).
        precision: of weights and computation; inputs and outputs stay fp32.
        calibration: for int8: some dozens of images like those of the application.
        min_agreement: for fp16 and int8, replaces the limits below: the fraction of detections with a score of at
            least 0.3, in either result, that must have a counterpart of the same class with an IoU of at least 0.7.

    Returns:
        The largest differences between the results of file and model.

    Raises:
        ExportMismatch: the results differ by more than 0.1 px or 0.001 (fp16, int8: 1 px or 0.01), or agree less than
            ``min_agreement``; no file is kept.
        ValueError: no images, or settings that exclude each other or are not supported.
        ImportError: the extra for the format is not installed.
    """
    kind = FORMATS.get(format)
    if kind is None:
        raise ValueError(f"format={format!r}: one of {', '.join(FORMATS)}")
    if has_one_to_one(model.network):
        model = without_training_parts(model)
    form, post, path = kind_of(model), postprocess_of(model), Path(path)
    _check(kind, path, images, nms, raw, dynamic and form == "dense", precision, calibration, min_agreement)
    if raw and form != "dense":
        raise ValueError(
            f"'{model.name}' has no raw outputs: proposals and queries are made from decoded boxes inside the file; "
            "leave out raw"
        )
    _check_inner_nms(model, form, format)
    if form == "dense" and nms and (type(post) is not PostProcess or post.voting_sigma):
        raise ValueError(
            f"the post-processing of '{model.name}' is more than threshold and NMS and cannot be exported: "
            "leave out nms, then poise applies it to the outputs of the file"
        )
    similarity = vars(post).get("nms_similarity", "iou")
    if nms and similarity != "iou":
        raise ValueError(
            f"nms_similarity='{similarity}': the NonMaxSuppression of the runtimes compares boxes by their IoU; "
            "leave out nms, then poise applies NMS to the outputs of the file"
        )
    kind.check({"nms": nms, "dynamic": dynamic, precision: True})
    outputs: Outputs = "detections" if nms else "raw" if raw else "decoded"
    training = model.training
    model.eval()
    try:
        metadata = metadata_of(model, outputs, dynamic, precision)
        plan = Plan(model, metadata, [_named(metadata, *_prepared(model, metadata, image)) for image in calibration])
        return _write_and_compare(plan, kind, path, images, min_agreement)
    finally:
        model.train(training)


def _check_inner_nms(model: DetectionModel, form: str, format: str) -> None:
    """Refuse formats without NMS for models that apply it before their last stage or their decoder."""
    if form == "regions" and format in ("ncnn", "executorch"):
        raise ValueError(
            f"'{model.name}' cannot be written as {format}: it has no operators for the NMS of proposals "
            "(NonMaxSuppression) and for RoIAlign on the level of each region (NonZero); use onnx or openvino"
        )
    if form == "queries" and format in ("ncnn", "executorch") and has_distinct_queries(model.network):
        raise ValueError(
            f"'{model.name}' cannot be written as {format}: it has no operator for the NMS of distinct_queries "
            "(NonMaxSuppression); use onnx or openvino"
        )


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
        raise ValueError("an export is compared with PyTorch on images: give at least one")
    if nms and raw:
        raise ValueError("a file returns either detections or the raw outputs of the head: leave out nms or raw")
    if nms and dynamic:
        raise ValueError(
            "a file of a one-stage model with NMS takes one image of a fixed size: leave out nms or dynamic"
        )
    if (precision == "int8") != bool(len(calibration)):
        raise ValueError("int8 needs images for its calibration (--calibrate PATH), and other precisions have none")
    if min_agreement is not None and (precision == "fp32" or not 0 < min_agreement <= 1):
        raise ValueError("min_agreement is a fraction in (0,1], for fp16 and int8: fp32 keeps its limits")


def _write_and_compare(
    plan: Plan, kind: Format, path: Path, images: Sequence[Tensor], min_agreement: float | None
) -> ExportComparison:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / path.name
        kind.module().write(plan, file)
        exported = load_exported(file)
        by_overlap = min_agreement is not None or plan.metadata.precision == "int8"
        agreement = (counterparts if by_overlap else compare)(plan.model, exported, images)
        _check_result(agreement, plan.metadata, path, min_agreement)
        _move(kind.files(file), kind.files(path))
    return agreement


def _move(written: Sequence[Path], wanted: Sequence[Path]) -> None:
    """Move the files to their paths, the main file last."""
    if len(wanted) > 1:
        wanted[0].unlink(missing_ok=True)  # do not combine an old main file with new companions
    for source, target in reversed(list(zip(written, wanted, strict=True))):
        os.replace(source, target)


def _check_result(
    agreement: ExportComparison, metadata: ExportMetadata, path: Path, min_agreement: float | None
) -> None:
    """Raise ``ExportMismatch`` if the results differ too much."""
    if not agreement.compared:
        raise ExportMismatch(
            "the model detects nothing on the given images, so nothing was compared: give other images"
        )
    tolerance = FULL if metadata.precision == "fp32" else HALF
    if min_agreement is None and not agreement.within(tolerance):
        hint = "" if metadata.precision == "fp32" else "; --min-agreement FRACTION compares the detections instead"
        if metadata.precision == "int8":
            matched = f"{agreement.matched_fraction:.1%}"
            hint += f" ({matched} of those with a score of {CONFIDENT} have a counterpart with IoU {OVERLAP})"
        raise ExportMismatch(
            f"{path}: not written, because it differs from PyTorch ({agreement}; allowed: {tolerance}){hint}"
        )
    if min_agreement is not None and agreement.matched_fraction < min_agreement:
        raise ExportMismatch(
            f"{path}: not written, {agreement.matched_fraction:.1%} of the detections agree ({agreement})"
        )


def compare(model: DetectionModel, exported: DetectionModel, images: Sequence[Tensor]) -> ExportComparison:
    """Run both on the same images, padded to the file's size; a dynamic file also on a larger batch and size."""
    network = exported_network(exported)
    result = EMPTY
    for number, image in enumerate(images):
        pixels, sizes = _prepared(model, network.metadata, image)
        if network.metadata.size is None and number == 0:
            larger = _enlarged(pixels, model.preprocess.divisor).repeat(2, 1, 1, 1)
            result = result.merged(_compared(model, exported, larger, sizes.repeat(2, 1)))
        result = result.merged(_compared(model, exported, pixels, sizes))
    return result


@torch.no_grad()
def counterparts(model: DetectionModel, exported: DetectionModel, images: Sequence[Tensor]) -> ExportComparison:
    """Match the confident detections of both by class and IoU."""
    metadata = exported_network(exported).metadata
    matcher = DetectionMatcher()
    for image in images:
        pixels, sizes = _prepared(model, metadata, image)
        matcher.add(*(_detections(one, pixels, sizes)[0] for one in (model, exported)))
    return matcher.comparison()


def _prepared(model: DetectionModel, metadata: ExportMetadata, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels (1,3,H,W), of the file's size if it is fixed, and the size before padding."""
    prepare = model.preprocess
    pixels, sizes = prepare.batch([prepare.normalize(prepare.resize(image))])
    if metadata.size is not None:
        pixels = functional.pad(pixels, (0, metadata.size[1] - pixels.shape[3], 0, metadata.size[0] - pixels.shape[2]))
    return pixels, sizes


def _enlarged(pixels: Tensor, step: int) -> Tensor:
    """Return pixels (1,3,H + step,W + 2 step): mirror images instead of padding, in which scores would be equal.

    Equal scores of proposals are ordered by each runtime in its own way.
    """
    row = torch.cat((pixels, pixels.flip(3), pixels.flip(2)), 3)
    return torch.cat((row, row.flip(2) / 2), 2)[:, :, : pixels.shape[2] + step, : pixels.shape[3] + 2 * step]


def _named(metadata: ExportMetadata, pixels: Tensor, sizes: Tensor) -> dict[str, Tensor]:
    """Return the inputs of the traced graph."""
    values = {"pixels": pixels, "sizes": sizes.float(), "proposals": torch.stack([windows(size) for size in sizes])}
    return {name: values[name] for name in traced_inputs(metadata)}


def windows(size: Tensor) -> Tensor:
    """Return boxes (N,4) of three sizes all over an image of ``size`` (2,), the proposals of a comparison."""
    boxes = []
    for parts in (2, 4, 8):
        first = torch.arange(2 * parts - 1) / (2 * parts)
        y, x = torch.meshgrid(first, first, indexing="ij")
        boxes.append(torch.stack((x, y, x + 1 / parts, y + 1 / parts), -1).flatten(0, 1))
    return torch.cat(boxes) * size.flip(0).repeat(2)


def _detections(model: DetectionModel, pixels: Tensor, sizes: Tensor) -> list[dict[str, Tensor]]:
    """Return the detections of each image; those of Fast R-CNN from ``windows``."""
    return model.detect(pixels, sizes, [windows(size) for size in sizes] if model.needs_proposals else None)


@torch.no_grad()
def _compared(model: DetectionModel, exported: DetectionModel, pixels: Tensor, sizes: Tensor) -> ExportComparison:
    network = exported_network(exported)
    metadata = network.metadata
    threshold = getattr(metadata.postprocess, "score_threshold", 0.0)
    if metadata.outputs == "detections" or metadata.kind != "dense":
        tolerance = FULL if metadata.precision == "fp32" else HALF
        limit, result = metadata.postprocess.max_detections, EMPTY
        for found, theirs in zip(*(_detections(one, pixels, sizes) for one in (model, exported)), strict=True):
            result = result.merged(compare_detections(found, theirs, threshold, tolerance, limit=limit))
        return result
    ours = dense_network(model)
    decoded = ours.branch.head(ours.neck(ours.backbone(pixels)))
    here, there = ({"boxes": p.boxes, "scores": p.scores()} for p in (decoded, network.predictions(pixels)))
    return compare_outputs(here, there, threshold)
