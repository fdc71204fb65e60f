"""``poise lab weights`` and ``poise lab curves``: files and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poise.cli import main


def test_weights_and_curves(trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lab", "weights", str(trained), "--data", str(demo_data), "--split", "train", "--device", "cpu"]
    assert main([*words, "--image", "1", "--out", str(tmp_path / "weights")]) == 0
    content = json.loads((tmp_path / "weights" / "weights.json").read_text(encoding="utf-8"))
    assert set(content["anchors"]) == set("ABCD") and content["form"] == "code"
    assert {path.name for path in (tmp_path / "weights").glob("*.png")} == {"weights-anchors.png", "weights-maps.png"}
    assert main(["lab", "curves", "--alpha", "0.5", "--out", str(tmp_path / "curves")]) == 0
    assert (tmp_path / "curves" / "curves.csv").read_text(encoding="utf-8").startswith("figure,curve,x,y")
    assert "gradient 0.534 at an error of 0.1" in capsys.readouterr().out
    for wrong, reason in (
        ([*words, "--image", "9"], "the split has images 0 to 7"),
        ([*words, "--image", "1", "--object", "99"], "has the objects 0 to"),
        (["lab", "curves", "--alpha", "0"], "must be greater than 0"),
    ):
        assert main(wrong) in (1, 2)
        assert reason in capsys.readouterr().err
