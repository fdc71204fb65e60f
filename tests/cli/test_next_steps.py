"""``poise eval --analyze``, ``poise compare`` and ``poise predict --score-threshold best`` on a tiny run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import poise
from poise.cli import main
from poise.evaluate import analyze


def test_a_run_stores_its_analysis_and_thresholds(trained: Path, demo_data: Path) -> None:
    stored = json.loads((trained / "analysis.json").read_text())
    metrics = json.loads((trained / "metrics.json").read_text())
    evaluation = poise.Detector(trained, device="cpu").val(demo_data)
    assert evaluation.analyze().to_dict() == analyze(evaluation.truth, evaluation.detections).to_dict()
    assert set(metrics["thresholds"]) == {one["name"] for one in stored["thresholds"]}
    page = (trained / "report.html").read_text()
    assert "Score thresholds of the highest F1" in page and "AP50 lost by each type of error" in page


def test_eval_analyzes(trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(trained), "--data", str(demo_data), "--device", "cpu", "--out", str(tmp_path / "new")]
    assert main([*words, "--analyze", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["analysis"] == json.loads((tmp_path / "new" / "analysis.json").read_text())
    for name in ("report.html", "error_types.png", "calibration.png", "slices.png", "captions.json"):
        assert (tmp_path / "new" / name).stat().st_size > 0
    assert main(words) == 2
    assert "--analyze" in capsys.readouterr().err


def test_compare_a_run_with_itself(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare"
    words = ["compare", str(trained), str(trained), "--data", str(demo_data), "--device", "cpu", "--draws", "5"]
    assert main([*words, "--out", str(out)]) == 0
    assert "first: " in capsys.readouterr().out
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["ap"][0] == comparison["ap"][1] and len(comparison["images"]) == 4
    page = (out / "report.html").read_text()
    assert page.count("<img") == page.count("src='data:image/") == 2 and "paired bootstrap" in page
    assert main([*words, "--draws", "0"]) == 1 and "draws=0" in capsys.readouterr().err


def test_best_thresholds_are_those_of_the_run(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    metrics = json.loads((run / "metrics.json").read_text())
    names = list(metrics["thresholds"])
    images = next(path.parent for path in sorted(demo_data.rglob("*.jpg")) if "val" in str(path))
    everything = poise.Detector(run, device="cpu").predict(images, score_threshold=0.0)
    scores = sorted(float(score) for one in everything for score in one.scores)
    middle = scores[len(scores) // 2]
    metrics["best_f1"] = {"threshold": middle, "f1": 0.5, "precision": 0.5, "recall": 0.5}
    metrics["thresholds"] = {name: 1.0 if name == names[0] else None for name in names}
    (run / "metrics.json").write_text(json.dumps(metrics))
    words = [
        "predict",
        str(run),
        str(images),
        "--device",
        "cpu",
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--score-threshold", "best"]) == 0
    found = [one for record in json.loads(capsys.readouterr().out) for one in record["detections"]]
    expected = [
        float(score)
        for one in everything
        for name, score in zip(one.names, one.scores, strict=True)
        if score >= middle and name != names[0]
    ]
    assert sorted(one["score"] for one in found) == pytest.approx(sorted(expected), abs=1e-4) and expected
    (run / "metrics.json").unlink()
    assert main([*words, "--score-threshold", "best"]) == 1
    assert "metrics.json does not exist" in capsys.readouterr().err
    with pytest.raises(ValueError, match="neither a number nor 'best'"):
        poise.Detector(run, device="cpu").predict(images, score_threshold="most")  # type: ignore[call-overload]
