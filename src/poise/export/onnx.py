"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.export.metadata import KEY, NO_METADATA, ExportMetadata, Kind
from poise.export.packages import MissingPackage

if TYPE_CHECKING:
    from poise.export.plan import Plan

OPSET = 18
QUANTIZED = ["Conv", "Add", "MaxPool", "Relu", "LeakyRelu", "Concat", "Resize"]
LEARNED = {"Conv", "Gemm", "MatMul", "ConvTranspose"}  # operators that may have weights


def write(plan: Plan, path: Path) -> None:
    """Write the file of a plan."""
    content = graph_of(plan, path.parent)
    entry = content.metadata_props.add()
    entry.key, entry.value = KEY, plan.metadata.to_text()
    path.write_bytes(content.SerializeToString())


def graph_of(plan: Plan, folder: Path, precision: str | None = None) -> Any:
    """Return the ONNX graph of a plan, with NMS if it is wanted; ``folder`` is for temporary files."""
    precision = precision or plan.metadata.precision
    content = _trace(plan)
    if precision == "fp16":
        content = _halved(content, plan.metadata.kind)
    if precision == "int8":
        content = _quantized(content, plan, folder)
    if plan.metadata.kind == "dense" and plan.metadata.outputs == "detections":
        from poise.export.suppression import append_suppression

        size = None if "size" in plan.metadata.inputs else plan.metadata.size
        content = append_suppression(content, plan.metadata.dense_postprocess, size)
    return content


def _trace(plan: Plan) -> Any:
    from poise.export.onnx_operators import translations

    examples = plan.examples()
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # the exporter uses deprecated calls
        program = torch.onnx.export(
            plan.program(),
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=plan.traced_names(),
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _quiet:
    """Context that suppresses the exporter's log messages."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(logging.NOTSET)


def _halved(content: Any, kind: Kind) -> Any:
    """Convert weights and layers to fp16; decoding, inputs and outputs stay in fp32.

    Of two-stage and query detectors only the learned layers are converted: their proposals, references and positions
    between the layers are pixels, which fp16 would round.
    """
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise MissingPackage("onnxruntime's transformers tools") from error
    nodes = after_layers(content) if kind == "dense" else content.graph.node
    full = [node.name for node in nodes if node.op_type not in LEARNED]
    halved = convert_float_to_float16(
        content,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=list(DEFAULT_OP_BLOCK_LIST),
        node_block_list=full,
    )
    once = {tuple(node.output): node for node in halved.graph.node}  # a cast is repeated for every node that reads it
    order = dict.fromkeys(tuple(node.output) for node in halved.graph.node)
    nodes = [once[output] for output in order]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def full_precision_nodes(content: Any) -> list[str]:
    """Return the names of the last learned layers and the nodes after them; quantized, they would move every box."""
    return [node.name for node in after_layers(content)]


def after_layers(content: Any) -> list[Any]:
    """Return the last learned layers and all nodes that no learned layer depends on."""
    needed: set[str] = set()  # values that a later learned layer depends on
    last = []
    for node in reversed(content.graph.node):
        inner = any(output in needed for output in node.output)
        if inner or node.op_type in LEARNED:
            needed.update(node.input)
        if not inner:
            last.append(node)
    return last


def _quantized(content: Any, plan: Plan, folder: Path) -> Any:
    """Quantize weights (one scale per channel) and activations to 8 bits, with ranges from the calibration.

    Of two-stage and query detectors only convolutions are quantized: sums and concatenations of boxes are not.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining: Iterator[Mapping[str, Tensor]] = iter(plan.calibration)

        def get_next(self) -> dict[str, Any] | None:
            inputs = next(self.remaining, None)
            return None if inputs is None else {name: value.numpy() for name, value in inputs.items()}

    source, target = folder / "full.onnx", folder / "quantized.onnx"
    source.write_bytes(content.SerializeToString())
    with _quiet():
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=full_precision_nodes(content),
            op_types_to_quantize=QUANTIZED if plan.metadata.kind == "dense" else ["Conv"],
            extra_options={"CalibMovingAverage": True},
        )
    quantized = onnx.load(target)
    source.unlink()
    target.unlink()
    return quantized


def open_file(path: Path, threads: int) -> tuple[ExportMetadata, Any]:
    """Return the metadata of the file and a function that runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _load_errors() as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is not a usable ONNX file: {reason} Copy it again, or export its checkpoint again (poise export)"
        ) from error
    about = session.get_modelmeta().custom_metadata_map
    if KEY not in about:
        raise ValueError(f"{path} was not exported by poise: {NO_METADATA}")

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(value) for value in found]

    return ExportMetadata.from_text(about[KEY]), run


def _load_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.InvalidGraph,
        state.NoSuchFile,
        RuntimeError,
    )
