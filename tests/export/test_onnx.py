"""ONNX files run with ONNX Runtime against PyTorch; what disagrees is not left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from export import exporting
from export.exporting import SMALL, images, lively, same
from PIL import Image

from poise.api import Detector
from poise.cli import main
from poise.detection_model import DetectionModel
from poise.export import ExportComparison, ExportMismatch, export_model, load_exported
from poise.export.compare import FULL
from poise.models import create_model
from poise.models.files import save_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def nanodet(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionModel, Path, ExportComparison]:
    model = exporting.nanodet()
    path = tmp_path_factory.mktemp("export") / "nanodet.onnx"
    return model, path, export_model(model, path, images())


@pytest.fixture
def traced(nanodet: tuple[DetectionModel, Path, ExportComparison], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds: the graph of the file at hand stands in for another trace of the same model."""
    content = onnx.load(nanodet[1])
    del content.metadata_props[:]
    monkeypatch.setattr("poise.export.onnx._trace", lambda *arguments, **settings: content)


def test_the_file_detects_what_the_model_detects(nanodet: tuple[DetectionModel, Path, ExportComparison]) -> None:
    model, path, agreement = nanodet
    assert agreement.images == 2 and agreement.compared > 0 and agreement.within(FULL)
    exported = load_exported(path)
    assert exported.class_names == ("cat", "dog", "bird") and exported.category_ids == (7, 8, 9)
    assert exported.preprocess == model.preprocess
    with torch.no_grad():
        for ours, theirs in zip(model(images()), exported(images()), strict=True):
            same(ours, theirs)
    assert not list(path.parent.glob(".export-*"))


def test_the_facade_predicts_with_the_file(nanodet: tuple[DetectionModel, Path, ExportComparison]) -> None:
    model, path, _ = nanodet
    found = Detector(path, device="cpu").predict(images()[0], score_threshold=0.05)[0]
    with torch.no_grad():
        wanted = model(images()[:1])[0]
    torch.testing.assert_close(found.scores, wanted["scores"], atol=1e-3, rtol=0)


def test_an_exported_file_cannot_be_trained(nanodet: tuple[DetectionModel, Path, ExportComparison]) -> None:
    targets = [{"boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]]), "labels": torch.tensor([0])}]
    with pytest.raises(ValueError, match="cannot be trained"):
        load_exported(nanodet[1]).losses(torch.zeros(1, 3, 64, 64), targets)


def test_an_image_that_is_larger_than_the_file_takes(nanodet: tuple[DetectionModel, Path, ExportComparison]) -> None:
    with pytest.raises(ValueError, match="up to 64 x 64 pixels.*--dynamic"):
        load_exported(nanodet[1]).detect(torch.zeros(1, 3, 96, 64))


def test_nms_inside_where_the_threshold_does_not_read_the_score(tmp_path: Path) -> None:
    model = lively("atss_mnv3s_fpn", **SMALL)
    agreement = export_model(model, tmp_path / "atss.onnx", images(), nms=True)
    assert agreement.compared > 0 and agreement.unmatched == 0
    exported = load_exported(tmp_path / "atss.onnx")
    with torch.no_grad():
        for ours, theirs in zip(model(images()), exported(images()), strict=True):
            same(ours, theirs)


@pytest.mark.usefixtures("traced")
def test_a_file_that_differs_is_not_left_behind(tmp_path: Path) -> None:
    model = exporting.nanodet()

    with torch.no_grad():
        model.network.branch.head.box_distances[0].bias[3] += 0.5  # the graph is that of the model before
    with pytest.raises(ExportMismatch, match="not written, because it differs from PyTorch"):
        export_model(model, tmp_path / "nanodet.onnx", images())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("traced")
def test_the_command_line(
    nanodet: tuple[DetectionModel, Path, ExportComparison], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(nanodet[0], tmp_path / "model.pt")
    assert main(["export", str(tmp_path / "model.pt"), "--out", str(tmp_path / "small.onnx")]) == 0
    assert "compared with PyTorch" in capsys.readouterr().out and (tmp_path / "small.onnx").is_file()


def test_files_of_names_stand_in_this_folder_and_those_of_checkpoints_next_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    save_model(create_model("nanodet_plus_m_320"), "runs/best.pt")

    def write(model: DetectionModel, path: Path, *rest: Any, **settings: Any) -> str:
        path.touch()
        return "not compared"

    monkeypatch.setattr("poise.export.export_model", write)
    assert main(["export", "nanodet_plus_m_320", "--weights", "runs/best.pt"]) == 0
    assert main(["export", "runs/best.pt"]) == 0
    assert Path("nanodet_plus_m_320.onnx").is_file() and Path("runs/best.onnx").is_file()


def test_predict_and_eval_take_the_file_like_a_checkpoint(
    nanodet: tuple[DetectionModel, Path, ExportComparison], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    records = []
    for number, image in enumerate(images()):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture.save(tmp_path / "data" / "images" / f"{number}.png")
        records.append({"id": number, "file_name": f"{number}.png", "width": picture.width, "height": picture.height})
    truth = [{"id": 1, "image_id": 0, "category_id": 8, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}]
    names = [{"id": number, "name": name} for number, name in ((7, "cat"), (8, "dog"), (9, "bird"))]
    file = tmp_path / "data" / "annotations.json"
    file.write_text(json.dumps({"images": records, "annotations": truth, "categories": names}), encoding="utf-8")
    pictures, path = str(tmp_path / "data" / "images"), str(nanodet[1])
    assert main(["predict", path, pictures, "--out", str(tmp_path / "out"), "--score-threshold", "0.06"]) == 0
    found = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert len(found) == 2 and any(record["detections"] for record in found)
    capsys.readouterr()
    assert main(["eval", path, "--data", str(file), "--split", "annotations", "--json"]) == 0
    assert "ap" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": []}, "at least one"),
        ({"nms": True, "dynamic": True}, "leave out nms or dynamic"),
        ({"nms": True, "raw": True}, "leave out nms or raw"),
        ({"format": "tflite"}, "one of onnx, openvino, ncnn, executorch"),
        ({"format": "openvino"}, "openvino files end in .xml"),
        ({"precision": "fp8"}, "one of fp32, fp16, int8"),
        ({"precision": "int8"}, "--calibrate"),
        ({"calibration": [0]}, "--calibrate"),
        ({"min_agreement": 0.9}, "fp32 keeps its limits"),
        ({"precision": "int8", "calibration": [0], "min_agreement": 1.5}, r"a fraction in \(0,1\]"),
    ],
)
def test_impossible_exports_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export_model(exporting.nanodet(), tmp_path / "x.onnx", **{"images": images(), **settings})


def test_metadata_that_this_version_cannot_read(
    nanodet: tuple[DetectionModel, Path, ExportComparison], tmp_path: Path
) -> None:
    content = onnx.load(nanodet[1])
    (entry,), path = content.metadata_props, tmp_path / "other.onnx"
    about = json.loads(entry.value)
    for change, message in (
        ({"format": "poise-export-99"}, r"newer version of poise.*update poise, or export the checkpoint again"),
        ({"format": "poise-export-1"}, "has the format 'poise-export-1'.*export it again"),
        ({"model": {**about["model"], "class_names": ["cat"]}}, "names 1 classes.* the model has 3 classes: export it"),
    ):
        entry.value = json.dumps({**about, **change})
        path.write_bytes(content.SerializeToString())
        with pytest.raises(ValueError, match=rf"other\.onnx: .*{message}"):
            load_exported(path)
    del content.metadata_props[:]
    path.write_bytes(content.SerializeToString())
    with pytest.raises(ValueError, match=r"not exported by poise.*poise export"):
        load_exported(path)


def test_files_that_poise_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(ValueError, match="not a usable ONNX file"):
        load_exported(tmp_path / "noise.onnx")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        load_exported(tmp_path / "nothing.onnx")


RUN = """
import sys
from poise.api import Detector
from poise.cli import main

path, picture, out = sys.argv[1:]
assert main(["predict", path, picture, "--out", out, "--score-threshold", "0.05"]) == 0
assert len(Detector(path).predict(picture, score_threshold=0.05)[0]) > 0
rooms = ("poise.models", "poise.nn", "poise.detectors", "poise.branches", "timm")
loaded = [name for name in sys.modules if name in rooms or name.startswith(tuple(f"{room}." for room in rooms))]
assert not loaded, loaded
"""


def test_a_file_runs_without_the_code_of_the_networks(
    nanodet: tuple[DetectionModel, Path, ExportComparison], tmp_path: Path
) -> None:
    picture = tmp_path / "scene.png"
    Image.fromarray(images()[0].permute(1, 2, 0).numpy()).save(picture)
    words = [sys.executable, "-c", RUN, str(nanodet[1]), str(picture), str(tmp_path / "out")]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "scene.png").is_file()
