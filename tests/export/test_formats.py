"""Files of every format run with their real runtimes against PyTorch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from export.exporting import PLAIN, SMALL, images, lively, nanodet, same
from support.slow import slow_but

from poise.api import Detector
from poise.detection_model import DetectionModel
from poise.export import (
    FORMATS,
    ExportComparison,
    ExportMismatch,
    default_path,
    executorch,
    export_model,
    load_exported,
)
from poise.export.compare import FULL, HALF
from poise.export.graph import metadata_of
from poise.export.plan import Plan

QUICK = ("onnx", "openvino", "ncnn")  # ExecuTorch takes half a minute to write anything
SEEDS = {"ncnn": 3}  # weights without detections whose scores are equal but for rounding, so that NMS keeps the same


def requires(name: str) -> None:
    kind = FORMATS[name]
    for package in (*kind.writing, *kind.running):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install 'poise[{name}]')")


def exported(
    folder: Path, name: str, model: DetectionModel | None = None, **settings: Any
) -> tuple[Path, ExportComparison]:
    requires(name)
    folder.mkdir(exist_ok=True)
    path = default_path(folder / "model.pt", name)
    return path, export_model(model or nanodet(), path, images(), format=name, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK[1:])
def test_a_file_detects_what_the_model_detects(name: str, tmp_path: Path) -> None:
    model = nanodet(SEEDS.get(name, 0))
    path, agreement = exported(tmp_path, name, model)
    assert agreement.images == 2 and agreement.compared > 0 and agreement.within(FULL)
    assert sorted(tmp_path.iterdir()) == sorted(FORMATS[name].files(path))
    found = Detector(path, device="cpu")
    assert found.class_names == ("cat", "dog", "bird") and found.model.preprocess == model.preprocess
    with torch.no_grad():
        for ours, theirs in zip(model(images()), found.model(images()), strict=True):
            same(ours, theirs)


@pytest.mark.slow
def test_an_executorch_file_detects_what_the_model_detects(tmp_path: Path) -> None:
    model = nanodet()
    path, agreement = exported(tmp_path, "executorch", model)
    assert agreement.compared > 0 and agreement.within(FULL)
    with torch.no_grad():
        for ours, theirs in zip(model(images()), load_exported(path)(images()), strict=True):
            same(ours, theirs)


def test_prelu_for_executorch() -> None:
    x, slope = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.25])
    assert torch.equal(executorch.prelu(x, slope), torch.nn.functional.prelu(x, slope))


def test_what_executorch_cannot_lower_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(*arguments: Any, **settings: Any) -> None:
        try:
            raise AssertionError("no such layout")
        except AssertionError as error:
            raise Exception("An error occurred when running a pass") from error

    partitioner = "executorch.backends.xnnpack.partition.xnnpack_partitioner"
    monkeypatch.setitem(sys.modules, partitioner, SimpleNamespace(XnnpackPartitioner=object))
    monkeypatch.setitem(sys.modules, "executorch.exir", SimpleNamespace(to_edge_transform_and_lower=lower))
    program = SimpleNamespace(run_decompositions=lambda table: None)
    monkeypatch.setattr(Plan, "program", lambda *arguments, **settings: program)
    model = nanodet(options=PLAIN)
    with pytest.raises(ValueError, match=r"cannot write 'nanodet_plus_m_320': no such layout \(AssertionError\)"):
        executorch.write(Plan(model, metadata_of(model, "decoded", False, "fp32"), []), tmp_path / "x.pte")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_openvino_with_nms_inside_and_boxes_that_may_leave_the_image(tmp_path: Path) -> None:
    model = lively("tood_mnv3s_fpn", **SMALL)  # no border; asks for the size before padding
    path, agreement = exported(tmp_path, "openvino", model, nms=True)
    assert agreement.compared > 0 and agreement.unmatched == 0
    with torch.no_grad():
        for ours, theirs in zip(model(images()), load_exported(path)(images()), strict=True):
            same(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "ncnn"])
def test_raw_outputs_are_decoded_outside(name: str, tmp_path: Path) -> None:
    model = nanodet(SEEDS.get(name, 0), PLAIN)
    path, agreement = exported(tmp_path, name, model, raw=True)
    assert agreement.compared > 0
    file = load_exported(path)
    outputs = file.network.outputs({"pixels": torch.zeros(1, 3, 64, 64)})  # type: ignore[operator]
    assert [output.shape[2] for output in outputs.values()] == [3, 32]  # classes, bins of four sides
    with torch.no_grad():
        for ours, theirs in zip(model(images()), file(images()), strict=True):
            same(ours, theirs)


@pytest.mark.slow
def test_deformable_layers_leave_for_other_runtimes(tmp_path: Path) -> None:
    model = lively("vfnet_mnv3s_fpn", **SMALL, deformable_towers=True)
    _, agreement = exported(tmp_path, "onnx", model)
    assert agreement.compared > 0 and agreement.within(FULL)


@pytest.mark.slow
def test_any_batch_and_size(tmp_path: Path) -> None:
    model = nanodet(options=PLAIN)
    path, agreement = exported(tmp_path, "onnx", model, dynamic=True)
    assert agreement.images == 4  # the first image is also seen twice, on a larger canvas
    pixels = torch.randn(3, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    network: Any = model.network
    with torch.no_grad():
        ours = network.branch.head(network.neck(network.backbone(pixels)))
    theirs = load_exported(path).network.predictions(pixels)  # type: ignore[operator]
    torch.testing.assert_close(theirs.boxes, ours.boxes, atol=0.1, rtol=0)
    torch.testing.assert_close(theirs.scores(), ours.scores(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", slow_but(QUICK, ["ncnn"]))
def test_half_precision(name: str, tmp_path: Path) -> None:
    path, agreement = exported(tmp_path, name, precision="fp16")
    assert agreement.within(HALF) and load_exported(path).network.metadata.precision == "fp16"  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_eight_bits(name: str, tmp_path: Path) -> None:
    if name == "openvino":
        pytest.importorskip("nncf")
    model = nanodet()
    for layer in model.network.branch.head.classes:  # type: ignore[union-attr]
        layer.bias.data.fill_(0.0)  # confident ones are compared
    plain, _ = exported(tmp_path, name, model)
    size = sum(file.stat().st_size for file in FORMATS[name].files(plain))
    path, agreement = exported(tmp_path, name, model, precision="int8", calibration=images(6), min_agreement=0.05)
    assert agreement.typical is not None and agreement.boxes > 0
    assert sum(file.stat().st_size for file in FORMATS[name].files(path)) < size
    with pytest.raises(ExportMismatch, match=r"allowed: 1 px and 0\.01\).*--min-agreement FRACTION"):
        exported(tmp_path / "strict", name, model, precision="int8", calibration=images(6))
    assert not list((tmp_path / "strict").iterdir())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ncnn", {"nms": True}, "ncnn files cannot be written with nms: .*poise applies threshold and NMS"),
        ("ncnn", {"dynamic": True}, "with dynamic: .*one file per size"),
        ("ncnn", {"precision": "int8", "calibration": images(1)}, "with int8: .*ncnn2int8"),
        ("executorch", {"nms": True}, "executorch files cannot be written with nms"),
        ("executorch", {"dynamic": True}, "executorch files cannot be written with dynamic"),
    ],
)
def test_what_a_format_cannot_do_is_refused_with_the_reason(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export_model(nanodet(), default_path(tmp_path / "m.pt", name), images(), format=name, **settings)


@pytest.mark.slow
def test_a_failed_export_leaves_an_older_file_alone(tmp_path: Path) -> None:
    path, _ = exported(tmp_path, "ncnn")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="ncnn files cannot be written with nms"):
        exported(tmp_path, "ncnn", nms=True)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match="model.ncnn.param is incomplete without its file .*model.ncnn.bin"):
        load_exported(path)


@pytest.mark.skipif(os.name == "nt", reason="a shell script plays the converter")
@pytest.mark.parametrize("crashes", slow_but([1, 99], [99]))
def test_a_converter_that_crashes_is_tried_again(crashes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pnnx = pytest.importorskip("pnnx", reason="pnnx is not installed (pip install 'poise[ncnn]')")
    runs, player = tmp_path / "runs", tmp_path / "pnnx"
    crash = f'echo >> "{runs}"; if [ $(wc -l < "{runs}") -le {crashes} ]; then kill -SEGV $$; fi'
    player.write_text(f'#!/bin/sh\n{crash}\nexec "{pnnx.EXEC_PATH}" "$@"\n')
    player.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(player))
    if crashes > 1:
        with pytest.raises(ValueError, match=r"pnnx cannot convert .*exit code -11"):
            exported(tmp_path / "files", "ncnn")
        assert len(runs.read_text()) == 3 and not any((tmp_path / "files").iterdir())
    else:
        assert exported(tmp_path / "files", "ncnn")[1].within(FULL)


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino"), (".param", "ncnn")])
def test_a_runtime_that_is_not_installed(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poise.export.packages.importlib.util.find_spec", lambda name: None)
    kind = next(kind for kind in FORMATS.values() if kind.suffix == suffix)
    for file in kind.files(tmp_path / f"model{suffix}"):
        file.write_bytes(b"")
    with pytest.raises(ImportError, match=rf"{package} is not installed; pip install 'poise\[\w+\]'"):
        Detector(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("name", ["openvino", "ncnn"])
def test_files_that_poise_did_not_write(name: str, tmp_path: Path) -> None:
    requires(name)
    path = default_path(tmp_path / "noise.pt", name)
    for file in FORMATS[name].files(path):
        file.write_text("noise", encoding="utf-8")
    with pytest.raises(ValueError, match="not a usable OpenVINO file|metadata is damaged"):
        load_exported(path)
