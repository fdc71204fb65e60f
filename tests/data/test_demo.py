"""The demo data: reproducible, complete, varied, and with boxes that say where things are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.demo import CLASS_NAMES, DemoScene, demo_scene, write_demo_data
from poise.data.demo import scenes as composing
from poise.data.demo.shapes import CLASSES, coverage, placed


@pytest.fixture(scope="module")
def scenes() -> list[DemoScene]:
    return [demo_scene(np.random.default_rng((0, 0, i)), 320) for i in range(100)]


def test_scenes_are_varied(scenes: list[DemoScene]) -> None:
    counts = np.array([sum(not found.crowd for found in scene.objects) for scene in scenes])
    assert (counts == 0).sum() >= 2 and (counts >= 25).sum() >= 4
    objects = [found for scene in scenes for found in scene.objects]
    longest = np.array([max(found.box[2:]) for found in objects if not found.crowd])
    assert longest.min() <= 9 and longest.max() >= 140 and np.median(longest) < 60
    labels = np.bincount([found.label for found in objects], minlength=len(CLASS_NAMES))
    assert len(CLASS_NAMES) >= 6 and labels.min() > 0.5 * labels.mean()
    assert any(found.crowd for found in objects)
    shapes = {scene.image.size for scene in scenes}
    assert len(shapes) > 80 and max(max(shape) for shape in shapes) <= 320
    assert {width > height for width, height in shapes} == {True, False}


def test_boxes_lie_inside_and_are_not_empty(scenes: list[DemoScene]) -> None:
    for scene in scenes:
        for found in scene.objects:
            x, y, w, h = found.box
            assert x >= 0 and y >= 0 and w >= 1 and h >= 1
            assert x + w <= scene.image.width and y + h <= scene.image.height
            assert 0 < found.area <= w * h
            assert found.crowd or max(w, h) >= composing.LEAST_EXTENT


def test_a_lone_objects_box_encloses_what_changed_in_the_picture() -> None:
    """Paint one object over a known ground: the annotation must be the extent of the pixels that changed."""
    for label in range(len(CLASS_NAMES)):
        rng = np.random.default_rng(label)
        canvas = composing._Canvas(
            tuple(CLASSES.values()), np.full((90, 90, 3), 100, np.float32), np.full((90, 90), -1, np.int32)
        )
        composing._add(canvas, rng, 50.0, label)
        (found,) = composing._objects(canvas)
        changed = np.abs(canvas.picture - 100).max(2) > 20
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        assert np.abs(np.subtract(box, found.box)).max() <= 2
        assert found.label == label


def test_hidden_objects_become_ignore_regions_and_then_nothing() -> None:
    def outcome(hidden_columns: int) -> list[bool]:
        owner = np.full((40, 40), -1, np.int32)
        owner[10:30, 10:30] = 0
        owner[10:30, 10 : 10 + hidden_columns] = -1
        canvas = composing._Canvas((), np.zeros((40, 40, 3), np.float32), owner, [2], [400])
        return [found.crowd for found in composing._objects(canvas)]

    assert [outcome(columns) for columns in (0, 13, 15, 20)] == [[False], [False], [True], []]


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_have_the_size_that_was_asked_for(name: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        cover = coverage(placed(CLASSES[name](rng), 60.0, rng)) > 0.5
        extent = max(np.ptp(np.flatnonzero(cover.any(axis))) + 1 for axis in (0, 1))
        assert abs(extent - 60) <= 2


def read(folder: Path) -> dict[str, Any]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    first = read(write_demo_data(tmp_path / "a", train=4, val=2, seed=5, size=96))
    assert first == read(write_demo_data(tmp_path / "b", train=4, val=2, seed=5, size=96))
    longer = read(write_demo_data(tmp_path / "c", train=6, val=2, seed=5, size=96))
    assert all(longer[name] == content for name, content in first.items() if name.endswith(".jpg"))
    other = read(write_demo_data(tmp_path / "d", train=4, val=2, seed=6, size=96))
    assert other["train/000001.jpg"] != first["train/000001.jpg"]
    assert first["train/000001.jpg"] != first["val/000001.jpg"]


def test_annotations_are_sound_coco(tmp_path: Path) -> None:
    out = write_demo_data(tmp_path / "demo", train=12, val=3, size=128)
    for split, count in (("train", 12), ("val", 3)):
        document = json.loads((out / "annotations" / f"instances_{split}.json").read_text())
        assert len(document["images"]) == count
        assert [category["name"] for category in document["categories"]] == list(CLASS_NAMES)
        for record in document["images"]:
            with Image.open(out / split / record["file_name"]) as image:
                assert image.size == (record["width"], record["height"])
        ids = [annotation["id"] for annotation in document["annotations"]]
        assert len(set(ids)) == len(ids) and min(ids, default=1) == 1
        assert {a["image_id"] for a in document["annotations"]} <= {r["id"] for r in document["images"]}
        assert all(1 <= a["category_id"] <= len(CLASS_NAMES) for a in document["annotations"])


def test_no_image_id_is_in_two_splits(tmp_path: Path) -> None:
    out = write_demo_data(tmp_path / "demo", train=3, val=3, size=96)
    documents = [
        json.loads((out / "annotations" / f"instances_{split}.json").read_text()) for split in ("train", "val")
    ]
    first, second = ({record["id"] for record in document["images"]} for document in documents)
    assert len(first) == len(second) == 3 and not first & second


def test_plain_scenes_hold_larger_objects() -> None:
    scenes = [demo_scene(np.random.default_rng((0, 0, i)), 320, composing.STYLES["plain"]) for i in range(60)]
    counts = [len(scene.objects) for scene in scenes]
    longest = [max(found.box[2:]) for scene in scenes for found in scene.objects if not found.crowd]
    assert max(counts) <= 13 and 4 < np.mean(counts) < 10
    assert np.median(longest) > 45  # some are smaller: cut by the border or by what lies over them


def test_existing_data_is_kept_and_nothing_else_is_overwritten(tmp_path: Path) -> None:
    out = write_demo_data(tmp_path / "demo", train=2, val=1, size=96)
    before = (out / "train" / "000001.jpg").stat().st_mtime_ns
    assert write_demo_data(out, train=2, val=1, size=96) == out
    assert (out / "train" / "000001.jpg").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="other settings"):
        write_demo_data(out, train=3, val=1, size=96)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not demo data"):
        write_demo_data(tmp_path / "mine", train=2, val=1, size=96)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(ValueError, match="style='easy'"):
        write_demo_data(tmp_path / "no", style="easy")
    with pytest.raises(ValueError, match="train=0"):
        write_demo_data(tmp_path / "no", train=0)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("poise.data.demo.write._annotations", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path / "demo", train=2, val=1, size=96)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "demo").mkdir()  # an empty folder is taken over
    assert (write_demo_data(tmp_path / "demo", train=1, val=1, size=96) / "demo.json").is_file()


def test_a_test_split_leaves_the_other_splits_as_they_are(tmp_path: Path) -> None:
    plain = write_demo_data(tmp_path / "plain", train=2, val=2, seed=3, size=64)
    more = write_demo_data(tmp_path / "more", train=2, val=2, seed=3, size=64, test=3)
    assert not (plain / "test").exists() and len(list((more / "test").iterdir())) == 3
    documents = {}
    for split in ("train", "val", "test"):
        documents[split] = json.loads((more / "annotations" / f"instances_{split}.json").read_text())
    for split in ("train", "val"):
        assert json.loads((plain / "annotations" / f"instances_{split}.json").read_text()) == documents[split]
    ids = [image["id"] for document in documents.values() for image in document["images"]]
    assert len(set(ids)) == 7
    pictures = {path.read_bytes() for split in ("train", "val", "test") for path in (more / split).iterdir()}
    assert len(pictures) == 7, "no test image is a training or validation image"
    with pytest.raises(ValueError, match="test=-1"):
        write_demo_data(tmp_path / "other", test=-1)
