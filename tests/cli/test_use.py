"""``poise train``, ``eval`` and ``predict`` on a tiny data set: what they write and print, and how they fail."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.parity import checkpoint
from support.tiny import TINY_MODEL

import poise
from poise.cli import main
from poise.cli.progress import ImageCounter, clock
from poise.recipes import load_recipe
from poise.storage import read_safely


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failing command says."""
    capsys.readouterr()
    assert main(words) == 1
    output = capsys.readouterr().err
    assert output.startswith("poise: ")
    assert "Traceback" not in output
    return output


def test_training_leaves_a_run_folder(trained: Path) -> None:
    for name in ("recipe.yaml", "classes.txt", "results.csv", "best.pt", "last.pt", "train_batch_0.jpg", "report.html"):
        assert (trained / name).stat().st_size > 0
    assert load_recipe(trained / "recipe.yaml").data.batch_size == 4
    model = poise.load(trained)
    assert model.class_names == tuple((trained / "classes.txt").read_text().split())


def test_the_report_needs_no_other_file(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert page.count("<img") == page.count("src='data:image/") >= 10
    assert page.count("url(data:image/jpeg;base64,") >= 1  # truth and detections
    assert all(target.startswith("#") for target in re.findall(r"(?:href|action)=['\"]?([^'\" >]*)", page))
    assert "backbone: test_byobnet" in page


def test_the_report_is_of_the_best_weights_and_says_so(trained: Path) -> None:
    page, metrics = (trained / "report.html").read_text(), json.loads((trained / "metrics.json").read_text())
    best = read_safely(trained / "best.pt")
    assert metrics["epoch"] == best["epoch"] and metrics["ap"] == best["metrics"]["ap"]
    assert page.count(f"best.pt, epoch {best['epoch']}") >= 3  # header, classes, figures
    assert f"<b>{100 * metrics['ap']:.1f}</b>" in page
    record = json.loads((trained / "run.json").read_text())
    for text in ("atss_r18_fpn", "8 train images", "4 val images", record["machine"], record["started"]):
        assert text in page
    captions = json.loads((trained / "captions.json").read_text())
    assert all(caption in page for caption in captions.values()) and "val_0.jpg" in captions


def test_resuming_a_finished_run_changes_no_weight(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["train", "--resume", "--out", str(run), "--device", "cpu"]) == 0
    before, after = poise.load(trained / "last.pt").state_dict(), poise.load(run / "last.pt").state_dict()
    assert all((before[name] == after[name]).all() for name in before)


def test_a_used_folder_is_refused(trained: Path, demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "atss_r18_fpn", "--data", str(demo_data), "--out", str(trained), *TINY_MODEL]
    assert "already has a run" in fails(words, capsys)


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere"
    words = ["train", "atss_r18_fpn", "--data", str(missing), "--out", str(tmp_path / "run"), *TINY_MODEL]
    assert str(missing) in fails(words, capsys)


def test_unknown_model_option_is_named(demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "atss_r18_fpn", "--data", str(demo_data), "--out", str(tmp_path / "run")]
    options = ["--model.options", "top", "5", "--model.backbone-weights", "none"]
    assert "did you mean 'topk'?" in fails([*words, *options], capsys)


def test_no_permission_is_named(
    demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root every folder can be written, so the system's refusal is played."""
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    out = folder / "scenes"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(out))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert f"{out}: permission denied" in fails(["demo-data", str(out)], capsys)


def test_eval_prints_the_numbers(trained: Path, demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(trained), "--data", str(demo_data), "--device", "cpu"]) == 0
    assert "4 images" in capsys.readouterr().out


def test_eval_writes_json(trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    results = tmp_path / "results.json"
    words = ["eval", str(trained / "best.pt"), "--data", str(demo_data), "--device", "cpu", "--json"]
    assert main([*words, "--save-json", str(results)]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["counts"]["images"] == 4
    assert len(numbers["classes"]) == 8
    assert isinstance(json.loads(results.read_text()), list)


def test_eval_of_an_unknown_split(trained: Path, demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'tset'" in fails(["eval", str(trained), "--data", str(demo_data), "--split", "tset"], capsys)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", "truncated"])
def test_a_damaged_checkpoint_is_refused(
    content: bytes | str, trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    whole = (trained / "best.pt").read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    assert str(path) in fails(["eval", str(path), "--data", str(demo_data)], capsys)


def test_a_missing_checkpoint_is_named(demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.pt" in fails(["eval", "nowhere.pt", "--data", str(demo_data)], capsys)


def test_predict_a_folder(trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["predict", str(trained), str(demo_data / "val"), "--out", str(tmp_path / "found"), "--device", "cpu"]
    assert main([*words, "--score-threshold", "0", "--show-scores", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "found" / "detections.json").read_text()) == records
    assert [Path(record["path"]).name for record in records] == [f"{number:06d}.jpg" for number in range(1, 5)]
    for record in records:
        with Image.open(tmp_path / "found" / Path(record["path"]).name) as picture:
            assert picture.size == (record["width"], record["height"])


def test_predict_keeps_images_of_one_name_apart(trained: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / folder / "same.png")
    out = tmp_path / "out"
    words = ["predict", str(trained), str(tmp_path / "a/same.png"), str(tmp_path / "b/*.png"), "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["detections.json", "same-2.png", "same.png"]


def test_predict_in_tiles(trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(demo_data / "val" / "000001.jpg")
    words = ["predict", str(trained), image, "--out", str(tmp_path), "--tile", "64", "--device", "cpu"]
    assert main(words) == 0
    assert "1 image;" in capsys.readouterr().out


def test_predict_names_a_bad_image(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 not really")
    words = ["predict", str(trained), str(tmp_path / "bad.jpg"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert "bad.jpg" in fails(words, capsys)


def test_predict_of_nothing(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(trained), str(tmp_path / "nothing*.jpg"), "--out", str(tmp_path / "out")]
    assert "nothing*.jpg" in fails(words, capsys)


@pytest.mark.parametrize("wrong", [["--score-threshold", "2"], ["--batch-size", "0"], ["--tile", "3"]])
def test_predict_refuses_senseless_numbers(
    wrong: list[str], trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(trained), str(demo_data / "val"), "--out", str(tmp_path / "out")]
    fails([*words, *wrong], capsys)


def test_predict_a_video(trained: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra poise[video]")
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (10, 120, 230):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert main(["predict", str(trained), str(clip), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [record["frame"] for record in records] == [0, 1, 2]
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_published_weights_are_read_by_predict_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--weights FILE`` with a model's name; without the name the message says what is missing."""
    torch.save({"state_dict": checkpoint("nanodet-plus-m_320")}, tmp_path / "published.pth")
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "photograph.png")
    words = ["predict", "nanodet_plus_m_320", str(tmp_path / "photograph.png"), "--out", str(tmp_path / "out")]
    options = ["--weights", str(tmp_path / "published.pth"), "--device", "cpu", "--json"]
    assert main([*words, *options, "--classes", "person", "--score-threshold", "0.01", "--max-detections", "2"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert len(record["detections"]) <= 2 and {one["name"] for one in record["detections"]} <= {"person"}
    assert main(["predict", str(tmp_path / "published.pth"), *words[2:]]) == 1
    output = capsys.readouterr().err
    assert "checkpoint of an original project" in output and "--weights" in output and "truncated" not in output
    assert main(["export", "nanodet_plus_m_320", "--out", str(tmp_path / "model.onnx")]) == 1
    assert "has random weights: give --weights FILE" in capsys.readouterr().err


def test_other_names_of_the_same_classes_are_given_on_the_command_line(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the option, and with it the metrics are those of before."""
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    for file in (data / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = f"other {category['name']}"
        file.write_text(json.dumps(content))
    on = ["--data", str(data), "--device", "cpu", "--json"]
    assert main(["eval", str(trained), *on]) == 1
    assert "--class-names NAME" in capsys.readouterr().err
    names = [f"other {name}" for name in poise.load(trained).class_names]
    assert main(["eval", str(trained), *on, "--class-names", *names]) == 0
    renamed = json.loads(capsys.readouterr().out)
    assert main(["eval", str(trained), "--data", str(demo_data), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ap"] == renamed["ap"]
    assert main(["eval", str(trained), *on, "--class-names", "one"]) == 1
    assert "1 names" in capsys.readouterr().err


def test_progress_counts_images_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr("poise.cli.progress.time.monotonic", lambda: next(now))
    counter = ImageCounter(40, shown=True)
    counter(10)
    counter(20)
    assert "10/40 images, 0:30 left" in (output := capsys.readouterr().err) and "30/40 images, 0:10 left" in output
    assert clock(3725) == "1:02:05"
