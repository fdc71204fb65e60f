"""The loop of soft-NMS as an ONNX function (``operators.decay``); onnxscript reads the names of this module."""

import onnxscript
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op


@onnxscript.script(default_opset=op)
def decay(scores: FLOAT, factor: FLOAT, min_score: float, limit: int) -> tuple[FLOAT, INT64]:
    """Return scores (B,``limit``) and their indices, as ``poise.postprocess.decay_scores`` does."""
    dropped = op.Constant(value_float=-1.0)
    one = op.Constant(value_ints=[1])
    threshold = op.Constant(value_float=min_score)
    remaining = op.Identity(scores)
    best, index = op.TopK(remaining, one, axis=1)
    decayed = op.Slice(best, one, one, one)  # (B,0)
    order = op.Slice(index, one, one, one)
    count = op.Constant(value_int=limit)
    for _ in range(count):
        best, index = op.TopK(remaining, one, axis=1)
        decayed = op.Concat(decayed, best, axis=1)
        order = op.Concat(order, index, axis=1)
        row = op.GatherND(factor, index, batch_dims=1)
        remaining = op.Mul(remaining, row)
        remaining = op.Where(op.Less(remaining, threshold), dropped, remaining)
        remaining = op.ScatterElements(remaining, index, op.Expand(dropped, op.Shape(index)), axis=1)
    return decayed, order
