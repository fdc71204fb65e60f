"""A folder as LabelImg leaves it, unchanged: checked, trained on, evaluated and predicted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poise.cli import main

MODEL = "--model.options backbone test_byobnet channels 8 depth 1 --model.backbone-weights none --image-size 64".split()


@pytest.mark.slow
def test_the_photographs_of_cards(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shared / "data" / "cards"
    if not data.is_dir():
        pytest.skip("needs the photographs of playing cards")
    assert main(["check", str(data), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: (one["images"], one["objects"]) for name, one in report["splits"].items()} == {
        "train": (296, 527), "test": (67, 143)
    }  # fmt: skip
    assert (report["format"], report["training_splits"]) == ("voc", ["train", "test"])
    out = tmp_path / "run"
    words = ["train", "atss_r18_fpn", *MODEL, "--data", str(data), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--epochs", "1", "--batch-size", "16", "--workers", "0"]) == 0
    output = capsys.readouterr().out
    assert "296 training images, 67 validation images" in output and "no split val: validating on test" in output
    assert main(["eval", str(out), "--data", str(data), "--split", "test", "--device", "cpu", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["counts"]["images"], metrics["counts"]["objects"]) == (67, 143)
    assert [one["name"] for one in metrics["classes"]] == ["ace", "jack", "king", "nine", "queen", "ten"]
    photographs = data / "images" / "test"
    assert main(["predict", str(out), str(photographs), "--out", str(tmp_path / "found"), "--device", "cpu"]) == 0
    records = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(records) == 67 and {Path(record["path"]).parent for record in records} == {photographs}
