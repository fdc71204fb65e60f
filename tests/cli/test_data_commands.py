"""``poise demo-data``, ``check`` and ``demo``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.write_data import coco_content, write_coco

from poise.cli import main
from poise.cli.check_pictures import IMAGES, choose_images, draw_record
from poise.cli.demo import affordable_epochs, fastest_precision, step_time
from poise.data import open_data
from poise.data.loader import TrainLoader
from poise.draw import to_picture
from poise.evaluate.pictures import fit
from poise.recipes import with_settings
from poise.recipes.demo import demo


def test_demo_data_is_a_coco_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    assert main(["demo-data", str(out), "--train", "3", "--val", "2", "--size", "96"]) == 0
    assert str(out) in capsys.readouterr().out
    truth = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert len(truth["images"]) == 3
    assert all((out / "train" / image["file_name"]).is_file() for image in truth["images"])


def test_demo_data_has_two_sets_of_classes(tmp_path: Path) -> None:
    names = []
    for classes in ("shapes", "more_shapes"):
        out = tmp_path / classes
        words = ["--train", "1", "--val", "1", "--size", "64", "--classes", classes]
        assert main(["demo-data", str(out), *words]) == 0
        truth = json.loads((out / "annotations" / "instances_train.json").read_text())
        names.append({one["name"] for one in truth["categories"]})
    assert len(names[0]) == 8 and len(names[1]) == 16
    assert not names[0] & names[1]


def test_demo_data_does_not_touch_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert main(["demo-data", str(tmp_path), "--train", "3"]) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_check_of_good_data(demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(demo_data)]) == 0
    printed = capsys.readouterr().out
    assert "8 images" in printed
    assert "star" in printed


def test_check_as_json(demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(demo_data), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dropped"] == 0
    assert set(report["splits"]) == {"train", "val"}


def test_check_fails_where_something_would_be_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    assert main(["demo-data", str(out), "--train", "3", "--val", "2", "--size", "96"]) == 0
    (out / "train" / "000002.jpg").write_bytes(b"")
    capsys.readouterr()
    assert main(["check", str(out), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert "image-empty" in [finding["kind"] for finding in report["findings"]]
    assert main(["check", str(out), "--quick"]) == 3
    assert "000002.jpg" in capsys.readouterr().out


def test_check_draws_what_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco_content(40)
    content["annotations"][35]["iscrowd"] = 1
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    data = write_coco(tmp_path / "data", content)
    assert main(["check", str(data), "--quick", "--pictures", str(tmp_path / "seen")]) == 3
    page = (tmp_path / "seen" / "index.html").read_text()
    assert str(tmp_path / "seen" / "index.html") in capsys.readouterr().out
    assert page.count("<img") == IMAGES and "40 images, 39 objects, 1 faulty record left out" in page
    images = open_data(data, "train", "skip")
    chosen = choose_images(images)
    assert 35 in chosen, "the only crowd region is shown"
    for index in (35, 1):
        plain = to_picture(images.read(index))
        drawn = np.asarray(draw_record(images[index], plain, images.class_names)).astype(int)
        before = np.asarray(fit(plain)[0]).astype(int)
        x, y, right, bottom = (images[index].boxes[0] * drawn.shape[1] / plain.width).round().astype(int)
        changed = np.abs(drawn - before).sum(-1)[y : bottom + 1, x] > 0
        assert changed.any() and changed.mean() < 0.9 if index == 35 else changed.mean() > 0.9, "crowds are dashed"
        assert (right, bottom) < (drawn.shape[1], drawn.shape[0])


def test_check_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    output = capsys.readouterr().err
    assert str(tmp_path) in output
    assert output.startswith("poise: ")


@pytest.mark.slow
def test_demo_runs_to_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--epochs", "1", "--images", "8", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert f"AP {100 * metrics['ap']:.1f}" in printed
    assert "started from the network inside the package" in printed
    assert "weights from demo" in printed
    page = (out / "report.html").read_text()
    assert "<h2>Classes, best.pt, epoch 1</h2>" in page
    assert all(name in page for name in ("star", "gear", "crescent"))


def test_demo_takes_the_time_it_is_given() -> None:
    """Steps of 0.1 s, 100 of them an epoch; and no time still gives one epoch."""
    assert affordable_epochs(0.1, 100, 0.0) == 1
    assert affordable_epochs(0.1, 100, 101.0) == 10


def test_demo_takes_the_faster_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"fp32": 0.3, "bf16": 0.2}
    monkeypatch.setattr("poise.cli.demo.step_time", lambda recipe: seconds[recipe.train.precision])
    assert fastest_precision(demo()) == ("bf16", 0.2)
    seconds["bf16"] = 0.4
    assert fastest_precision(demo()) == ("fp32", 0.3)


def test_time_of_a_step_includes_images_and_optimizer(demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances by 1 s when it is read and by 5 s for each batch that is loaded."""
    clock = [0.0]

    def read(loader: Any, epoch: int) -> Iterator[Any]:
        for batch in original(loader, epoch):
            clock[0] += 5.0
            yield batch

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    original = TrainLoader.epoch
    monkeypatch.setattr(TrainLoader, "epoch", read)
    monkeypatch.setattr("poise.cli.demo.time.monotonic", tick)
    settings = {"data.path": str(demo_data), "data.batch_size": 2, "model.image_size": (64,)}
    assert step_time(with_settings(demo(), settings)) == 6.0
