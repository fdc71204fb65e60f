"""COCO data as users have it: ids and flags as text, boxes from polygons or in another unit, images anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data.reading import objects_of, read_everywhere
from support.write_data import HEIGHT, WIDTH, coco_content, picture, write_coco

from poise.data import BadData, DataError, check_data, open_data, splits
from poise.engine.sources import open_sets
from poise.recipes import DataSettings

FIRST = ("cat", (4.5, 5.25, 24.5, 15.25))
SECOND = ("Dog", FIRST[1])
BOTH = {"train/10.png": [FIRST], "train/11.png": [SECOND]}


def changed(**values: Any) -> dict[str, Any]:
    """The usual content with these values in its first annotation."""
    content = coco_content()
    content["annotations"][0].update(values)
    return content


def kinds(root: Path) -> dict[str, int]:
    return {finding.kind: finding.count for finding in check_data(root).findings}


@pytest.mark.parametrize("value", [0, "0", False, "False", "false", None, 0.0, "", "no"])
@pytest.mark.parametrize("name", ["iscrowd", "ignore"])
def test_flags_that_are_not_set(tmp_path: Path, name: str, value: Any) -> None:
    write_coco(tmp_path, changed(**{name: value}))
    assert read_everywhere(tmp_path) == BOTH
    record = open_data(tmp_path)[0]
    assert not record.crowd.any() and not record.ignore.any()


@pytest.mark.parametrize("value", [1, "1", True, "True", "true", 1.0])
def test_flags_that_are_set(tmp_path: Path, value: Any) -> None:
    write_coco(tmp_path, changed(iscrowd=value))
    assert open_data(tmp_path)[0].crowd.tolist() == [True] and check_data(tmp_path).splits["train"].crowd == 1
    write_coco(tmp_path, changed(ignore=value))
    assert open_data(tmp_path)[0].ignore.tolist() == [True]


@pytest.mark.parametrize("value", ["maybe", 2, -1, 0.5, [], {}])
def test_flags_that_are_unclear_are_faults(tmp_path: Path, value: Any) -> None:
    write_coco(tmp_path, changed(iscrowd=value))
    with pytest.raises(BadData, match="object-malformed.*iscrowd is .*neither 0 nor 1"):
        open_data(tmp_path)
    with pytest.raises(BadData, match="iscrowd"):
        open_sets(DataSettings(path=str(tmp_path), val="none"))
    assert objects_of(open_data(tmp_path, on_bad_data="skip")) == {"train/10.png": [], "train/11.png": [SECOND]}


def test_ids_as_text(tmp_path: Path) -> None:
    content = coco_content()
    for annotation in content["annotations"]:
        annotation |= {"category_id": str(annotation["category_id"]), "image_id": str(annotation["image_id"])}
    content["categories"][0]["id"] = "7"
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path) == BOTH
    assert open_data(tmp_path).category_ids == (3, 7)


def test_text_ids_of_images_meet_numbers_of_annotations(tmp_path: Path) -> None:
    content = coco_content()
    for image in content["images"]:
        image["id"] = str(image["id"])
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path) == BOTH
    assert open_data(tmp_path).image_ids() == ["10", "11"]


def test_annotation_ids_that_are_no_numbers(tmp_path: Path) -> None:
    content = changed(id="550e8400-e29b-41d4-a716-446655440000")
    content["annotations"].append({**content["annotations"][1], "bbox": [1, 1, 5, 5]})
    del content["annotations"][2]["id"]
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path)["train/10.png"] == [FIRST]
    assert open_data(tmp_path).objects.annotation_ids.tolist() == [3, 2, 4]
    finding = next(f for f in check_data(tmp_path).findings if f.kind == "annotation-id-not-integer")
    assert "2 annotations, the first with id 550e8400-e29b" in finding.examples[0]


def test_category_ids_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"][0]["id"] = content["annotations"][1]["category_id"] = "b7f0"
    write_coco(tmp_path, content)
    with pytest.raises(BadData, match="category-malformed: .*its id is no integer: .*b7f0"):
        open_data(tmp_path)


@pytest.mark.parametrize("bbox", [None, [], "absent"])
@pytest.mark.parametrize(
    "polygons", [[[4.5, 5.25, 24.5, 8, 10, 15.25]], [[4.5, 5.25, 9, 9, 8, 6], [20, 10, 24.5, 15.25, 21, 12]]]
)
def test_polygons_without_boxes(tmp_path: Path, bbox: Any, polygons: list[list[float]]) -> None:
    content = changed(segmentation=polygons, bbox=bbox)
    if bbox == "absent":
        del content["annotations"][0]["bbox"]
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path) == BOTH
    assert check_data(tmp_path).splits["train"].read_as == ("1 boxes taken from polygons",)


@pytest.mark.parametrize(
    "segmentation", [None, [], [[1, 2]], [[1, 2, "3", 4, 5, 6]], {"counts": [0, 9], "size": [3, 3]}]
)
def test_objects_without_box_and_polygon_are_faults(tmp_path: Path, segmentation: Any) -> None:
    write_coco(tmp_path, changed(segmentation=segmentation, bbox=[]))
    with pytest.raises(BadData, match="neither a bbox nor a polygon"):
        open_data(tmp_path)


def many(scale: float = 1.0) -> dict[str, Any]:
    """24 boxes in x, y, width, height, spread over two images."""
    content = coco_content()
    boxes = [[4 + 11 * (i % 4), 3 + 10 * (i // 4 % 3), 8 + i % 3, 7 + i % 2] for i in range(24)]
    content["annotations"] = [
        {"id": i + 1, "image_id": 10 + i % 2, "category_id": 3 + 4 * (i % 2), "bbox": [v * scale for v in box]}
        for i, box in enumerate(boxes)
    ]
    return content


def refused(root: Path, why: str) -> None:
    """All boxes of the split are refused, by ``open_data``, the check and training, and skipping them too."""
    assert check_data(root).exit_code == 3 and "boxes-other-unit" in kinds(root)
    for split in ("train", None):
        with pytest.raises(BadData, match=f"boxes-other-unit: .*{why}"):
            open_data(root, split)
    with pytest.raises(DataError, match="nothing is left"):
        open_sets(DataSettings(path=str(root), val="none", on_bad_data="skip"))


def test_boxes_divided_by_the_size_of_the_image(tmp_path: Path) -> None:
    content = many()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]
    write_coco(tmp_path, content)
    refused(tmp_path, "all 24 boxes lie within 0..1")
    write_coco(tmp_path / "right", many())
    assert "boxes-other-unit" not in kinds(tmp_path / "right")
    assert sum(map(len, read_everywhere(tmp_path / "right").values())) == 24


def test_boxes_as_corners(tmp_path: Path) -> None:
    content = many()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]
    write_coco(tmp_path, content)
    refused(tmp_path, "all 24 boxes seem to be x1, y1, x2, y2, and .* leave their image when read as x, y, width")


def test_yolo_boxes_as_corners(tmp_path: Path) -> None:
    from support.write_data import write_yolo

    boxes = [(0.1 * i, 0.08 * i, 0.1 * i + 0.2, 0.08 * i + 0.25) for i in range(8)]
    lines = "".join(f"1 {a:.3f} {b:.3f} {c:.3f} {d:.3f}\n" for a, b, c, d in boxes)
    write_yolo(tmp_path / "wrong", {"a": lines, "b": lines})
    refused(tmp_path / "wrong", "all 16 boxes seem to be x1, y1, x2, y2")
    lines = "".join(f"1 {(a + c) / 2:.3f} {(b + d) / 2:.3f} {c - a:.3f} {d - b:.3f}\n" for a, b, c, d in boxes)
    write_yolo(tmp_path / "right", {"a": lines, "b": lines})
    assert sum(map(len, read_everywhere(tmp_path / "right").values())) == 16


@pytest.mark.parametrize(
    ("stated", "folder"),
    [
        ("https://host.example/photos/{}?width=64", "images"),
        ("https://host.example/train/{}", "train"),
        ("/data/local-files/?d=photos/day%201/{}", "photos/day 1"),
        ("/data/local-files/?d=photos/{}", "elsewhere"),
        ("s3://bucket/key/{}", "train"),
        ("/home/me/data/train/{}", "train"),
        ("C:\\data\\train\\{}", "train"),
        ("set/deep/{}", "train/deep"),
        ("{}", "data"),
        ("{}", "somewhere/deep/inside"),
        ("train/{}", "train"),
    ],
)
def test_images_are_found_whatever_their_name(tmp_path: Path, stated: str, folder: str) -> None:
    content = coco_content()
    for i, image in enumerate(content["images"]):
        picture(tmp_path / folder / image["file_name"], shade=i)
        image["file_name"] = stated.format(image["file_name"])
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert read_everywhere(tmp_path, splits(tmp_path)[0]) == {f"{folder}/10.png": [FIRST], f"{folder}/11.png": [SECOND]}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("https://host.example/a.jpg", "as https://host.example/a.jpg; nothing is downloaded: put a.jpg into the data"),
        ("/data/local-files/?d=photos/a.jpg", r"image-missing: (train/)?photos/a.jpg .*as /data/local-files/\?d="),
        ("/home/me/a.jpg", "as /home/me/a.jpg"),
    ],
)
def test_a_missing_image_is_named_as_it_is_written(tmp_path: Path, stated: str, message: str) -> None:
    write_coco(tmp_path)
    content = coco_content()
    content["images"][0]["file_name"] = stated
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(BadData, match=message) as caught:
        open_data(tmp_path)
    assert "train//" not in str(caught.value) and "train/https:" not in str(caught.value)


def test_fiftyone_export(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(coco_content()))
    for i, name in enumerate(("10.png", "11.png")):
        picture(tmp_path / "data" / name, shade=i)
    assert read_everywhere(tmp_path, "labels") == {"data/10.png": [FIRST], "data/11.png": [SECOND]}


@pytest.mark.parametrize(("train", "val"), [("Train", "Validation"), ("TRAIN", "VAL"), ("train", "valid")])
def test_split_names_of_annotation_tools(tmp_path: Path, train: str, val: str) -> None:
    write_coco(tmp_path / "json", split=train)
    write_coco(tmp_path / "json", split=val, shade=9)
    roboflow = tmp_path / "roboflow"
    for folder in (train, val):
        write_coco(roboflow, split=folder, shade=len(folder))
        (roboflow / "annotations" / f"instances_{folder}.json").rename(roboflow / folder / "_annotations.coco.json")
    (roboflow / "annotations").rmdir()
    for root in (tmp_path / "json", roboflow):
        assert splits(root) == ("train", "val")
        assert read_everywhere(root, "val") == {f"{val}/10.png": [FIRST], f"{val}/11.png": [SECOND]}
        assert len(open_sets(DataSettings(path=str(root)))[0]) == 2


def test_unsupported_pictures_are_reported(tmp_path: Path) -> None:
    content = coco_content()
    write_coco(tmp_path, content)
    content["images"][0]["file_name"] = "10.heic"
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (tmp_path / "train" / "10.png").rename(tmp_path / "train" / "10.heic")
    (tmp_path / "train" / "._11.png").write_bytes(b"x")
    with pytest.raises(BadData, match="image-unsupported: train/10.heic"):
        open_data(tmp_path)
    assert kinds(tmp_path) == {"image-unsupported": 1, "class-without-objects": 1}
