"""OpenVINO files: ``*.xml`` and the weights in ``*.bin``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.export.metadata import KEY, NO_METADATA, ExportMetadata
from poise.export.onnx import full_precision_nodes, graph_of

if TYPE_CHECKING:
    from poise.export.plan import Plan


def write(plan: Plan, path: Path) -> None:
    """Write the files of a plan, converted from its ONNX graph. fp16 applies to the weights only."""
    import openvino

    graph = graph_of(plan, path.parent, "fp32")
    onnx_file = path.with_suffix(".onnx")
    onnx_file.write_bytes(graph.SerializeToString())
    model = openvino.convert_model(onnx_file)
    onnx_file.unlink()
    if plan.metadata.precision == "int8":
        model = _quantized(model, full_precision_nodes(graph), plan)
    model.set_rt_info(plan.metadata.to_text(), KEY)
    openvino.save_model(model, path, compress_to_fp16=plan.metadata.precision == "fp16")


def _quantized(model: Any, excluded: Sequence[str], plan: Plan) -> Any:
    """Quantize after training with NNCF; the nodes ``excluded`` stay in full precision.

    Of two-stage and query detectors only convolutions are quantized.
    """
    import nncf

    operators, calibration = model.get_ops(), plan.calibration
    known = {operator.get_friendly_name() for operator in operators}
    names = [name for name in excluded if name in known]
    if plan.metadata.kind != "dense":
        convolutions = ("Convolution", "GroupConvolution", "Constant", "Parameter", "Result")
        names = [one.get_friendly_name() for one in operators if one.get_type_name() not in convolutions]
    scope = nncf.IgnoredScope(names=names, validate=False)
    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([{name: value.numpy() for name, value in inputs.items()} for inputs in calibration])
    return nncf.quantize(
        model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(calibration), ignored_scope=scope
    )


def open_file(path: Path, threads: int) -> tuple[ExportMetadata, Any]:
    """Return the metadata of the file and a function that runs it."""
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a usable OpenVINO file: {_reason(error)}") from error
    if not model.has_rt_info(KEY):
        raise ValueError(f"{path} was not exported by poise: {NO_METADATA}")
    metadata = ExportMetadata.from_text(str(model.get_rt_info(KEY).value))
    hints: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    hints["INFERENCE_PRECISION_HINT"] = "f32"  # otherwise newer processors use bfloat16, with errors of pixels
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        found = request.infer({name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(found[name].copy()) for name in metadata.names]

    return metadata, run


def _reason(error: Exception) -> str:
    """Return the last line of the message; the lines before it are positions in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
