"""Graphs that several tests of exports share."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from poise.export.plan import Plan


@pytest.fixture(scope="session", autouse=True)
def _traced_once() -> Iterator[None]:
    """Trace equal models once: 8 bits, 16 bits and OpenVINO files begin with the graph of the plain ONNX file.

    Equal are models of one name and options with the same weights, the same input and the same outputs.
    """
    from poise.export import onnx

    trace, graphs = onnx._trace, dict[Any, bytes]()

    def once(plan: Plan) -> Any:
        weights = hashlib.sha256()
        for name, value in plan.model.state_dict().items():
            weights.update(name.encode() + value.numpy().tobytes())
        model, shape = plan.model, tuple(plan.examples()["pixels"].shape)
        key = (model.name, str(model.options), weights.hexdigest(), shape, plan.dynamic, *plan.traced_names())
        if key not in graphs:
            graphs[key] = trace(plan).SerializeToString()
        return importlib.import_module("onnx").load_model_from_string(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "_trace", once)
        yield
