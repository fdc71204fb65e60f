"""The operators of ``operators`` as ONNX nodes: functions of the exporter's ``custom_translation_table``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from poise.export import operators  # noqa: F401  defines the operators
from poise.nn.transformer import distinct  # noqa: F401  defines ``keep_distinct``


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """Return the ONNX form of each operator."""
    from onnxscript import opset18 as op

    from poise.export.onnx_soft_nms import decay

    def constant(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def suppress(boxes: Any, scores: Any, threshold: float) -> Any:
        shape = op.Shape(scores)
        groups = op.Reshape(scores, op.Concat(constant(-1), op.Shape(scores, start=-1), axis=0))  # (G,N)
        by_class = op.Unsqueeze(groups, constant(1))
        flat = op.Reshape(boxes, op.Concat(constant(-1), op.Shape(boxes, start=-2), axis=0))  # (G,N,4)
        everything = op.Shape(scores, start=-1)
        limits = (op.Constant(value_floats=[threshold]), op.Constant(value_floats=[0.0]))
        kept = op.NonMaxSuppression(flat, by_class, everything, *limits)  # (M,3) group, class, box
        index = op.Gather(kept, constant(0, 2), axis=1)
        nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(groups))
        return op.Reshape(op.ScatterND(nothing, index, op.GatherND(groups, index)), shape)

    def read_regions(
        maps: Sequence[object], regions: Any, image: Any, level: Any, scales: Sequence[float], bins: int
    ) -> Any:
        parts, rows = [], []
        for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
            of_level = op.Equal(level, op.Constant(value_int=number))
            rows.append(op.Reshape(op.NonZero(of_level), constant(-1)))
            parts.append(
                op.RoiAlign(
                    values,
                    op.Gather(regions, rows[-1], axis=0),
                    op.Gather(image, rows[-1], axis=0),
                    output_height=bins,
                    output_width=bins,
                    sampling_ratio=0,
                    spatial_scale=scale,
                )
            )
        order = op.Concat(*rows, axis=0)
        count = op.Size(order)
        positions = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
        return op.Gather(op.Concat(*parts, axis=0), op.ScatterElements(order, order, positions, axis=0), axis=0)

    operator: Any = torch.ops.poise_export
    return {
        operator.suppress.default: suppress,
        torch.ops.poise.keep_distinct.default: suppress,
        operator.read_regions.default: read_regions,
        operator.decay.default: decay,
    }
