"""Two-stage and query detectors as graphs and as files, against ``predict`` of the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.test_models import small
from export.exporting import images, same
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d
from torchvision.ops import batched_nms, roi_align

from poise.detection_model import DetectionModel
from poise.export import export_model, load_exported
from poise.export.compare import FULL, compare_detections
from poise.export.graph import metadata_of, part_of
from poise.export.operators import decay, read_regions, suppress
from poise.export.pooling import pool_by_windows
from poise.export.sampling import sample_by_grid
from poise.export.writing import windows
from poise.nn.kernels.deformable_sampling import sample_levels
from poise.nn.transformer.distinct import keep_distinct
from poise.postprocess import decay_factors

# H-Deformable-DETR and Group-DINO detect with the graphs of two-stage Deformable-DETR and DINO.
FAMILIES = (
    "faster_rcnn_r18_fpn", "fast_rcnn_r18_fpn", "libra_faster_rcnn_r18_fpn", "deformable_detr_r18",
    "conditional_detr_r18", "dab_detr_r18", "dino_r18", "co_deformable_detr_r18", "co_dino_r18",
)  # fmt: skip


def lively(name: str) -> DetectionModel:
    """A small random model whose scores differ."""
    model = small(name).eval()
    for key, parameter in model.named_parameters():
        if key.endswith(("classes.weight", "objectness.weight")):
            parameter.data.normal_(0, 0.5)
        if key.endswith("objectness.bias"):
            parameter.data.fill_(-25.0)  # runtimes round this sigmoid to 0
    return model


def scene() -> tuple[Tensor, Tensor]:
    """Return two images, not square, and their sizes before padding."""
    pixels = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    return pixels, torch.tensor([[96.0, 100.0], [80.0, 128.0]])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["faster_rcnn_r18_fpn", "fast_rcnn_r18_fpn", "deformable_detr_r18", "co_dino_r18"])
def test_the_graph_detects_what_the_model_detects(name: str, dynamic: bool) -> None:
    model, (pixels, sizes) = lively(name), scene()
    proposals = [windows(size) for size in sizes] if model.needs_proposals else None
    part = part_of(model, metadata_of(model, "detections", dynamic, "fp32"))
    more = [] if proposals is None else [torch.stack(proposals)]
    with torch.no_grad():
        boxes, scores, labels = part(pixels, sizes, *more)
    for image, ours in enumerate(model.detect(pixels, sizes, proposals)):
        kept = scores[image] > 0
        theirs = {"boxes": boxes[image][kept], "scores": scores[image][kept], "labels": labels[image][kept]}
        found = compare_detections(ours, theirs, 0.0, FULL, limit=1000)
        assert found.compared > 20 and found.unmatched == 0


class Operators(nn.Module):
    """NMS of two groups, RoIAlign of two levels, soft-NMS, and the NMS of distinct queries."""

    def forward(
        self, boxes: Tensor, scores: Tensor, fine: Tensor, coarse: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        regions, number = boxes.flatten(0, 1), boxes.shape[1]
        image = torch.arange(2).repeat_interleave(number)
        features = read_regions([fine, coarse], regions, image, labels.flatten(), [0.25, 0.125], 3)
        order = scores.sort(1, descending=True).values
        decayed = decay(order, decay_factors(boxes, labels, 0.3), 0.01, 20)
        return suppress(boxes, scores, 0.4), features, *decayed, keep_distinct(boxes / 64, scores + 1, 0.3)


def test_operators_in_onnx() -> None:
    """The operators' own implementations agree with torchvision, and their ONNX nodes with them."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from poise.export.onnx_operators import translations

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 40, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 4 + torch.rand(2, 40, 2, generator=generator) * 20), 2)
    scores, labels = torch.rand(2, 40, generator=generator), torch.randint(0, 2, (2, 40), generator=generator)
    scores[0, :5] = 0.0
    fine, coarse = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    inputs = (boxes, scores, fine, coarse, labels)
    kept, features, *_ = wanted = Operators()(*inputs)

    groups = torch.arange(2).repeat_interleave(40)
    by_torchvision = batched_nms(boxes.flatten(0, 1), scores.flatten(), groups, 0.4)
    positive = by_torchvision[scores.flatten()[by_torchvision] > 0]
    assert torch.equal(kept.flatten().nonzero().squeeze(1), positive.sort().values)
    rois = torch.cat((groups[:, None].float(), boxes.flatten(0, 1)), 1)
    levels = [roi_align(values, rois, 3, scale, aligned=True) for values, scale in ((fine, 0.25), (coarse, 0.125))]
    by_level = torch.where(labels.flatten()[:, None, None, None] == 0, *levels)
    torch.testing.assert_close(features, by_level)

    program = torch.onnx.export(
        Operators().eval(), inputs, dynamo=True, verbose=False, custom_translation_table=translations()
    )
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    for theirs, ours in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-5, rtol=1e-5)


def test_deformable_attention_by_grid_sampling() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 8), (3, 4))
    value = torch.randn(2, 60, 4, 8, generator=generator)
    locations = torch.rand(2, 5, 4, 2, 3, 2, generator=generator) * 1.4 - 0.2  # some leave the map
    weights = torch.rand(2, 5, 4, 2, 3, generator=generator)
    arguments = (value, shapes, locations, weights)
    torch.testing.assert_close(sample_by_grid(*arguments), sample_levels(*arguments), atol=1e-5, rtol=1e-5)


def test_raw_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no raw outputs.*leave out raw"):
        export_model(small("deformable_detr_r18"), tmp_path / "x.onnx", images(), raw=True)


@pytest.mark.parametrize("sizes", [(6, 2), (10, 3), (18, 5), (12, 3), (7, 7)])  # of P4 and P6, and equal
def test_pooling_by_windows(sizes: tuple[int, int]) -> None:
    height, pooled = sizes
    x = torch.randn(2, 3, height, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pool_by_windows(x, (pooled, 6)), adaptive_max_pool2d(x, (pooled, 6)))


@pytest.mark.parametrize(("format", "file"), [("ncnn", "x.ncnn.param"), ("executorch", "x.pte")])
def test_formats_without_the_operators_are_refused(format: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot be written as {format}: .*NonMaxSuppression.*use onnx or openvino"):
        export_model(small("faster_rcnn_r18_fpn"), tmp_path / file, images(), format=format)


@pytest.mark.parametrize("kind", ["dense", "queries"])
def test_between_the_layers_of_a_query_detector_numbers_stay_in_full_precision(kind: Any) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from poise.export.onnx import _halved

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    values = {"weight": np.ones((2, 2), np.float32), "offset": np.ones(2, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["pixels", "weight"], ["first"], "first"),
        helper.make_node("Add", ["first", "offset"], ["moved"], "move"),
        helper.make_node("MatMul", ["moved", "weight"], ["boxes"], "second"),
    ]
    ends = [helper.make_tensor_value_info(name, floats, [1, 2]) for name in ("pixels", "boxes")]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    model = helper.make_model(helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants))
    types = {value.name: value.data_type for value in _halved(model, kind).graph.initializer}
    assert types["weight"] == onnx.TensorProto.FLOAT16
    assert types["offset"] == (onnx.TensorProto.FLOAT16 if kind == "dense" else floats)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_files_detect_what_the_model_detects(name: str, tmp_path: Path) -> None:
    """Any batch and size, with the decoded outputs."""
    model, (pixels, sizes) = lively(name), scene()
    found = export_model(model, tmp_path / "model.onnx", images(), dynamic=True)
    assert found.images == 4 and found.compared > 0 and found.within(FULL)
    exported: Any = load_exported(tmp_path / "model.onnx")
    proposals = [windows(size) for size in sizes] if model.needs_proposals else None
    for ours, theirs in zip(*(one.detect(pixels, sizes, proposals) for one in (model, exported)), strict=True):
        assert compare_detections(ours, theirs, 0.05, FULL, limit=len(ours["scores"])).within(FULL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster_rcnn_r18_fpn", "co_dino_r18"])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_files_with_nms_or_top_k_inside(name: str, format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if format == "onnx" else format)
    model, path = lively(name), tmp_path / ("model.onnx" if format == "onnx" else "model.xml")
    assert export_model(model, path, images(), format=format, nms=True, dynamic=True).within(FULL)
    exported: Any = load_exported(path)
    assert exported.network.metadata.names == ("boxes", "scores", "labels")
    with torch.no_grad():
        for ours, theirs in zip(model(images()), exported(images()), strict=True):
            same({k: v[:5] for k, v in ours.items()}, {k: v[:5] for k, v in theirs.items()})
