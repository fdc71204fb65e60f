"""ExecuTorch files (``*.pte``, for phones) with XNNPACK convolutions; the metadata is in ``*.pte.json``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from poise.export.formats import companion
from poise.export.metadata import ExportMetadata

if TYPE_CHECKING:
    from poise.export.plan import Plan


def write(plan: Plan, path: Path) -> None:
    """Write the file of a plan.

    Raises:
        ValueError: ExecuTorch has no form for a part of the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages use deprecated calls
        path.write_bytes(_lowered(plan))
    companion(path, ".json").write_text(plan.metadata.to_text(), encoding="utf-8")


def _lowered(plan: Plan) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = plan.program(half=plan.metadata.precision == "fp16")
    program = program.run_decompositions({torch.ops.aten.prelu.default: prelu})
    if plan.metadata.precision == "int8":
        program = _quantized(program, plan.calibration, tuple(plan.examples().values()))
    logging.disable(logging.WARNING)
    try:
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        content: bytes = edge.to_executorch().buffer
        return content
    except Exception as error:  # its passes raise no narrower type
        reason = error.__cause__ or error
        raise ValueError(
            f"ExecuTorch cannot write '{plan.model.name}': {reason} ({type(reason).__name__}); use another format"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """``torch.nn.functional.prelu`` of (B,N,C) with one slope; XNNPACK's own takes maps (B,C,H,W) only."""
    return torch.where(x > 0, x, weight * x)


def _quantized(
    program: torch.export.ExportedProgram, calibration: Sequence[Mapping[str, Tensor]], examples: tuple[Tensor, ...]
) -> torch.export.ExportedProgram:
    """Quantize convolutions to 8 bits with one scale per channel of the weights; the rest keeps its precision."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    settings = get_symmetric_quantization_config(is_per_channel=True)
    quantizer.set_operator_type(torch.ops.aten.conv2d.default, settings)
    observed = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for inputs in calibration:
            observed(*inputs.values())
        return torch.export.export(convert_pt2e(observed), examples)


def open_file(path: Path, threads: int) -> tuple[ExportMetadata, Any]:
    """Return the metadata of the file and a function that runs it."""
    from executorch.runtime import Runtime

    metadata = ExportMetadata.from_text(companion(path, ".json").read_text(encoding="utf-8"))
    if threads:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

        _unsafe_reset_threadpool(threads)
    try:
        method = Runtime.get().load_program(path).load_method("forward")
    except RuntimeError as error:
        raise ValueError(f"{path} is not a usable ExecuTorch file: {error}") from error

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        return [value.clone() for value in method.execute([*inputs.values()])]

    return metadata, run
