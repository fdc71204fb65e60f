"""YOLO data as users have it: kinds of lines, places of labels, names of splits and classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.reading import read_everywhere
from support.write_data import HEIGHT, WIDTH, picture, write_yolo

from poise.data import BadData, DataError, check_data, open_data, splits
from poise.engine.sources import open_sets
from poise.recipes import DataSettings


def pixels(x1: float, y1: float, x2: float, y2: float) -> tuple[float, ...]:
    """Corners in shares of the picture as pixels."""
    return tuple(round(value * side, 2) for value, side in zip((x1, y1, x2, y2), (WIDTH, HEIGHT) * 2, strict=True))


def kinds(root: Path) -> set[str]:
    return {finding.kind for finding in check_data(root).findings}


BOX = "1 0.5 0.5 0.25 0.5"
OF_BOX = ("Dog", pixels(0.375, 0.25, 0.625, 0.75))


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        (f"{BOX} 0.4 0.3 0.6 0.7 0.5 0.5", "[3, 2]"),
        (f"{BOX} 0.4 0.3 2 0.6 0.7 1 0 0 0", "[3, 3]"),
        (f"{BOX} 0.4 0.3 2 0.6 0.7 1 0 0 0", "[3, 2]"),  # visibility although the description has none
        (f"{BOX} 0.05 0.9 0.6 0.7 1.5 0.5", "[3, 2]"),  # points outside the box and the picture
    ],
)
def test_keypoints_do_not_change_the_box(tmp_path: Path, line: str, shape: str) -> None:
    write_yolo(tmp_path, {"a": f"{line}\n0 0.25 0.25 0.5 0.5\n"})
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: [cat, Dog]\nkpt_shape: {shape}\n")
    expected = [OF_BOX, ("cat", pixels(0, 0, 0.5, 0.5))]
    assert read_everywhere(tmp_path) == {"images/train/a.png": expected}
    assert check_data(tmp_path).splits["train"].read_as == ("label lines: 1 boxes with keypoints, 1 boxes",)


def test_a_line_that_does_not_fit_kpt_shape_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": f"{BOX} 0.4 0.3 0.6 0.7\n"})
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, Dog]\nkpt_shape: [3, 2]\n")
    with pytest.raises(BadData, match="9 columns; 5, 11 or 14 by kpt_shape"):
        open_data(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, Dog]\nkpt_shape: three\n")
    with pytest.raises(DataError, match="kpt_shape: three"):
        open_data(tmp_path)


def test_keypoints_without_kpt_shape_are_pointed_out(tmp_path: Path) -> None:
    lines = f"{BOX} 0.4 0.3 0.6 0.7 0.5 0.5\n0 0.3 0.7 0.2 0.2 0.3 0.7 0.25 0.75 0.3 0.65\n"
    write_yolo(tmp_path, {"a": lines})
    assert "label-unclear" in kinds(tmp_path)
    square = "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n1 0.5 0.1 0.6 0.1 0.6 0.2 0.5 0.2\n"
    write_yolo(tmp_path / "polygons", {"a": square})
    assert "label-unclear" not in kinds(tmp_path / "polygons")


def test_boxes_oriented_boxes_and_polygons_in_one_file(tmp_path: Path) -> None:
    oriented = "0 0.5 0.2 0.7 0.4 0.5 0.6 0.3 0.4"
    polygon = "1 0.1 0.1 0.3 0.2 0.2 0.3 0.15 0.25 0.1 0.2"
    write_yolo(tmp_path, {"a": f"{BOX}\n{oriented}\n{polygon}\n"})
    expected = [OF_BOX, ("cat", pixels(0.3, 0.2, 0.7, 0.6)), ("Dog", pixels(0.1, 0.1, 0.3, 0.3))]
    assert read_everywhere(tmp_path) == {"images/train/a.png": expected}
    assert check_data(tmp_path).splits["train"].read_as == ("label lines: 1 boxes, 1 oriented boxes, 1 polygons",)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.png", "labels/train/a.txt"),
        ("images/train/a.png", "images/train/a.txt"),
        ("images/a.png", "images/a.txt"),
        ("Images/train/a.png", "Labels/train/a.txt"),
        ("images/train/a.png", "Labels/train/a.txt"),
        ("images/train/A.png", "labels/train/A.TXT"),
        ("images/train/a.png", "labels/train_labels/a.txt"),
        ("images/train_images/a.png", "labels/train_labels/a.txt"),
        ("train/images/a.png", "train/labels/a.txt"),
        ("train/images/a.png", "labels/train/a.txt"),
        ("train/a.png", "train/a.txt"),
        ("train/a.png", "labels/train/a.txt"),
        ("JPEGImages/train/a.b.png", "labels/train/a.b.txt"),
    ],
)
def test_labels_are_found_where_users_put_them(tmp_path: Path, image: str, label: str) -> None:
    picture(tmp_path / image)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text(BOX)
    (tmp_path / "data.yaml").write_text(f"train: {Path(image).parent}\nnames: [cat, Dog]\n")
    assert read_everywhere(tmp_path) == {image: [OF_BOX]}
    assert kinds(tmp_path) <= {"class-without-objects"}


def test_labels_of_another_split_are_not_taken(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": None})
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.1 0.1", "b": BOX}, split="val")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, Dog]\n")
    assert read_everywhere(tmp_path) == {"images/train/a.png": [OF_BOX], "images/train/b.png": []}
    assert "image-without-label" in kinds(tmp_path)


def test_a_label_in_an_unexpected_place_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": None})
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "b.txt").write_text(BOX)
    with pytest.raises(BadData, match="label-elsewhere: images/train/b.png .exported/b.txt has its name"):
        open_data(tmp_path)
    assert check_data(tmp_path).exit_code == 3 and "label-elsewhere" in kinds(tmp_path)
    assert open_data(tmp_path, on_bad_data="skip").image_ids() == ["images/train/a"]


def test_a_label_that_differs_in_capitals_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"A": None, "b": BOX})
    (tmp_path / "labels" / "train" / "a.txt").write_text(BOX)
    if (tmp_path / "labels" / "train" / "A.txt").exists():
        pytest.skip("this file system ignores capitals")
    assert {"label-elsewhere", "label-without-image"} <= kinds(tmp_path)
    with pytest.raises(BadData, match="labels/train/a.txt has its name"):
        open_data(tmp_path)


def test_two_labels_of_one_image(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "images" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert read_everywhere(tmp_path) == {"images/train/a.png": [OF_BOX]}
    finding = next(finding for finding in check_data(tmp_path).findings if finding.kind == "label-duplicate")
    assert "labels/train/a.txt is read, not images/train/a.txt" in finding.examples[0]


def start(root: Path, **settings: str) -> list[str]:
    """Remarks at the start of a training."""
    return open_sets(DataSettings(path=str(root), **settings))[2]


def test_training_needs_objects(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": None, "b": ""})
    with pytest.raises(ValueError, match="'train' has 2 images but no object to train on"):
        start(tmp_path)
    write_yolo(tmp_path, {"a": None, "b": BOX, "c": None})
    assert any("most images have no object (2 of 3)" in remark for remark in start(tmp_path, val="none"))
    write_yolo(tmp_path, {"a": BOX, "b": BOX, "c": None})
    assert start(tmp_path, val="none") == []


def test_skipping_everything_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 32 24 10 10\n", "b": ""})
    with pytest.raises(DataError, match="nothing is left of split 'train': 1 faulty record would be skipped"):
        open_data(tmp_path, on_bad_data="skip")
    with pytest.raises(DataError, match="nothing is left"):
        start(tmp_path, on_bad_data="skip")


@pytest.mark.parametrize(
    "text",
    [
        "names: [yes, no, on, off, null, 1.0, ~, 0x10, 2020-01-01, 'true']",
        "names: {0: yes, 1: no, 2: on, 3: off, 4: null, 5: 1.0, 6: ~, 7: 0x10, 8: 2020-01-01, 9: true}",
        "names:\n- yes\n- no\n- on\n- off\n- null\n- 1.0\n- ~\n- 0x10\n- 2020-01-01\n- true",
    ],
)
def test_class_names_stay_as_written(tmp_path: Path, text: str) -> None:
    write_yolo(tmp_path, {"a": "5 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5"})
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval:\ntest: null\n{text}\nnc: 10\n")
    assert splits(tmp_path) == ("train",)
    names = ("yes", "no", "on", "off", "null", "1.0", "~", "0x10", "2020-01-01", "true")
    assert open_data(tmp_path).class_names == names
    assert read_everywhere(tmp_path) == {"images/train/a.png": [("1.0", OF_BOX[1]), ("no", OF_BOX[1])]}


def test_a_class_that_is_no_name_is_named(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": ""})
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: {0: cat, 1: [a, b]}\n")
    with pytest.raises(DataError, match=r"not 1: \['a', 'b'\]"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Validation"), ("TRAIN", "VAL"), ("training", "valid"), ("train", "dev")]
)
def test_split_names_of_annotation_tools(tmp_path: Path, train: str, val: str) -> None:
    write_yolo(tmp_path, {"a": BOX}, split=train)
    write_yolo(tmp_path, {"b": "0 0.25 0.25 0.5 0.5"}, split=val)
    (tmp_path / "data.yaml").write_text(f"{train}: images/{train}\n{val}: images/{val}\nnames: [cat, Dog]\n")
    assert splits(tmp_path) == ("train", "val")
    assert read_everywhere(tmp_path, "train") == {f"images/{train}/a.png": [OF_BOX]}
    assert read_everywhere(tmp_path, "val") == {f"images/{val}/b.png": [("cat", pixels(0, 0, 0.5, 0.5))]}
    assert len(open_data(tmp_path, val)) == 1


def test_label_studio_export(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1a2b-a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1a2b-a.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat\nDog\n")
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "cat"}], "info": {"version": "1.0"}}')
    assert read_everywhere(tmp_path) == {"images/1a2b-a.png": [OF_BOX]}


def test_labelimg_yolo_with_classes_beside_the_labels(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("test", "b")):
        picture(tmp_path / split / f"{stem}.png")
        (tmp_path / split / f"{stem}.txt").write_text(BOX)
        (tmp_path / split / "classes.txt").write_text("cat\nDog\n")
    assert splits(tmp_path) == ("train", "test")
    assert read_everywhere(tmp_path, "test") == {"test/b.png": [OF_BOX]}


def test_darknet_export_of_cvat(tmp_path: Path) -> None:
    picture(tmp_path / "obj_train_data" / "a.png")
    (tmp_path / "obj_train_data" / "a.txt").write_text(BOX)
    (tmp_path / "obj.names").write_text("cat\nDog\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    (tmp_path / "obj.data").write_text(
        "classes = 2\nnames = data/obj.names\ntrain = data/train.txt\nbackup = backup/\n"
    )
    assert read_everywhere(tmp_path) == {"obj_train_data/a.png": [OF_BOX]}


def test_lists_with_paths_of_another_computer(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "train.txt").write_text("/home/me/data/images/train/a.png\nC:\\data\\images\\train\\a.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat, Dog]\n")
    assert read_everywhere(tmp_path) == {"images/train/a.png": [OF_BOX]}


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".gif"])
def test_pictures_that_are_not_supported_are_reported(tmp_path: Path, suffix: str) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": BOX})
    (tmp_path / "images" / "train" / "b.png").rename(tmp_path / "images" / "train" / f"b{suffix}")
    assert "image-unsupported" in kinds(tmp_path)
    with pytest.raises(BadData, match=f"image-unsupported: images/train/b{suffix}"):
        open_data(tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").unlink()
    assert read_everywhere(tmp_path) == {"images/train/a.png": [OF_BOX]}
    assert "image-unlisted" in kinds(tmp_path)


def test_files_of_systems_and_editors_are_no_data(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX})
    for junk in (".ipynb_checkpoints/a-checkpoint.png", "._a.png", "__MACOSX/a.png"):
        picture(tmp_path / "images" / "train" / junk)
    for junk in (".ipynb_checkpoints/a-checkpoint.txt", "._a.txt"):
        (tmp_path / "labels" / "train" / junk).parent.mkdir(exist_ok=True)
        (tmp_path / "labels" / "train" / junk).write_text("x")
    assert read_everywhere(tmp_path) == {"images/train/a.png": [OF_BOX]}
    assert kinds(tmp_path) == {"class-without-objects"}
