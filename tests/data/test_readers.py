"""Every layout against an independent reading of the same files."""

from __future__ import annotations

import json
import pickle
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from support.write_data import HEIGHT, WIDTH, coco_content, picture, voc_object, write_coco, write_voc, write_yolo

from poise.data import BadData, Category, DataError, open_data, splits, training_splits


def test_coco_in_order_of_ids_with_names_as_written(tmp_path: Path) -> None:
    images = open_data(write_coco(tmp_path), "train")
    assert images.format == "coco" and images.name == "train" and len(images) == 2
    assert images.categories == (Category(3, "cat"), Category(7, "Dog", supercategory="animal"))
    record = images[1]
    assert (record.id, record.width, record.height, record.path) == (11, WIDTH, HEIGHT, tmp_path / "train" / "11.png")
    assert record.boxes.tolist() == [[4.5, 5.25, 24.5, 15.25]] and record.boxes.dtype == np.float32
    assert record.labels.tolist() == [1] and record.areas.tolist() == [150.5] and record.annotation_ids.tolist() == [2]
    assert images.read(1).shape == (3, HEIGHT, WIDTH)
    with pytest.raises(IndexError):
        images[2]


def test_coco128_equals_pycocotools(shared: Path) -> None:
    path = shared / "data" / "coco128"
    images = open_data(path)
    truth = COCO(path / "annotations" / "instances_train2017.json")
    assert len(images) == 128 == len(truth.imgs)
    assert images.category_ids == tuple(sorted(truth.cats))
    assert images.class_names == tuple(truth.cats[i]["name"] for i in sorted(truth.cats))
    for record in images:
        expected = truth.imgToAnns[record.id]
        assert record.annotation_ids.tolist() == [a["id"] for a in expected]
        assert [images.category_ids[label] for label in record.labels] == [a["category_id"] for a in expected]
        assert record.crowd.tolist() == [bool(a["iscrowd"]) for a in expected]
        boxes = np.array([a["bbox"] for a in expected]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(record.boxes, boxes, atol=1e-4)
        assert np.allclose(record.areas, [a["area"] for a in expected])
        assert record.path.name == truth.imgs[record.id]["file_name"]


def test_to_coco_gives_back_what_was_read(shared: Path) -> None:
    path = shared / "data" / "coco128"
    original = json.loads((path / "annotations" / "instances_train2017.json").read_text())
    result = open_data(path).to_coco()
    keys = ("id", "image_id", "category_id", "iscrowd")
    assert {tuple(a[k] for k in keys) for a in result["annotations"]} == {
        tuple(a[k] for k in keys) for a in original["annotations"]
    }
    boxes = {a["id"]: a["bbox"] for a in original["annotations"]}
    assert all(np.allclose(a["bbox"], boxes[a["id"]], rtol=0, atol=1e-6) for a in result["annotations"])
    assert {i["id"] for i in result["images"]} == {i["id"] for i in original["images"]}
    assert result["categories"] == sorted(original["categories"], key=lambda c: c["id"])
    json.dumps(result)


def test_fresh_annotation_ids(tmp_path: Path) -> None:
    content = coco_content()
    for annotation in content["annotations"]:
        annotation["id"] = 0
    images = open_data(write_coco(tmp_path, content))
    assert [a["id"] for a in images.to_coco()["annotations"]] == [0, 0]
    assert [a["id"] for a in images.to_coco(fresh_annotation_ids=True)["annotations"]] == [1, 2]


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images/train", "train", "images", "."])
def test_coco_image_folders(tmp_path: Path, folder: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(coco_content()))
    for name in ("10.png", "11.png"):
        picture(tmp_path / folder / name)
    assert splits(tmp_path) == ("train",)
    expected = [(tmp_path / folder / name).resolve() for name in ("10.png", "11.png")]
    assert [record.path for record in open_data(tmp_path, "train2017")] == expected
    assert [r.path for r in open_data(tmp_path / "annotations" / "instances_train2017.json")] == expected


@pytest.mark.parametrize("folder", [".", "images"])
def test_bare_json_with_images_beside_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(coco_content()))
    for name in ("10.png", "11.png"):
        picture(tmp_path / folder / name)
    assert len(open_data(tmp_path / "mine.json")) == 2
    assert len(open_data(tmp_path)) == 2


def test_roboflow_layout(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "valid", "test")):
        content = coco_content(1 + i)
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
        for image in content["images"]:
            picture(tmp_path / split / image["file_name"])
    assert splits(tmp_path) == ("train", "val", "test")
    assert [len(open_data(tmp_path, split)) for split in ("train", "val", "valid", "test")] == [1, 2, 2, 3]


def test_lvis(tmp_path: Path) -> None:
    content = coco_content()
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [7], "not_exhaustive_category_ids": [3, 7]}
    for category, frequency in zip(content["categories"], "rf", strict=True):
        category["frequency"] = frequency
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "lvis_v1_train.json").write_text(json.dumps(content))
    for name in ("10.png", "11.png"):
        picture(tmp_path / "train2017" / name)
    images = open_data(tmp_path, "train")
    assert images.format == "lvis"
    assert [category.frequency for category in images.categories] == ["f", "r"]
    assert images[1].negative_category_ids == (7,) and images[1].not_exhaustive_category_ids == (3, 7)
    assert images[0].path == tmp_path / "train2017" / "10.png"
    written = images.subset([1]).to_coco()
    assert written["images"][0]["neg_category_ids"] == [7]
    assert written["categories"][0]["frequency"] == "f"


def test_yolo_boxes_polygons_and_background(tmp_path: Path) -> None:
    labels = {"a": "1 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.3 0.2 0.3 0.6\n", "b": "", "c": None}
    images = open_data(write_yolo(tmp_path, labels))
    assert images.format == "yolo" and images.class_names == ("cat", "Dog") and images.category_ids == (0, 1)
    assert [len(record.labels) for record in images] == [2, 0, 0]
    assert [fault.kind for fault in images.notes] == ["image-without-label"]
    first = [(0.5 - 0.125) * WIDTH, (0.5 - 0.25) * HEIGHT, (0.5 + 0.125) * WIDTH, (0.5 + 0.25) * HEIGHT]
    second = [0.1 * WIDTH, 0.2 * HEIGHT, 0.3 * WIDTH, 0.6 * HEIGHT]
    assert np.allclose(images[0].boxes, [first, second], atol=1e-4)
    assert images[0].labels.tolist() == [1, 0]
    assert (images[0].width, images[0].height) == (WIDTH, HEIGHT)


def test_yolo_names_as_mapping_and_rotated_photographs(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "4 0.5 0.25 1 0.5\n"}, names="{4: four, 2: two}")
    picture(tmp_path / "images" / "train" / "a.png", orientation=6)
    images = open_data(tmp_path / "data.yaml")
    assert images.class_names == ("two", "four") and images.category_ids == (2, 4)
    assert (images[0].width, images[0].height) == (HEIGHT, WIDTH)
    assert images[0].boxes.tolist() == [[0, 0, HEIGHT, WIDTH / 2]]
    assert images.read(0).shape == (3, WIDTH, HEIGHT)


def test_yolo_lists_roboflow_paths_and_several_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for stem in ("a", "b"):
            picture(tmp_path / split / "images" / f"{stem}.jpg")
    (tmp_path / "few.txt").write_text("./train/images/b.jpg\n\n")
    yaml = "train: ../train/images\nval: [valid/images, train/images]\ntest: few.txt\nnames: [x]\n"
    (tmp_path / "data.yaml").write_text(yaml)
    assert [len(open_data(tmp_path, split)) for split in splits(tmp_path)] == [2, 4, 1]
    assert open_data(tmp_path, "test")[0].path == tmp_path / "train" / "images" / "b.jpg"


@pytest.mark.parametrize("nested", [False, True])
def test_voc(tmp_path: Path, nested: bool) -> None:
    root = tmp_path / "VOC2007" if nested else tmp_path
    write_voc(root, {"000001": voc_object("dog") + voc_object("cat", (1, 2, 3.5, 4), 1), "000002": ""})
    images = open_data(tmp_path)
    assert images.format == "voc" and images.categories == (Category(1, "cat"), Category(2, "dog"))
    assert images[0].id == "000001" and images[0].path == root / "JPEGImages" / "000001.jpg"
    assert images[0].boxes.tolist() == [[5, 6, 25, 16], [1, 2, 3.5, 4]]
    assert images[0].ignore.tolist() == [False, True] and images[0].labels.tolist() == [1, 0]
    assert images.to_coco()["annotations"][1]["ignore"] == 1
    assert len(images[1].labels) == 0


def test_bccd_equals_a_literal_reading(shared: Path) -> None:
    path = shared / "data" / "bccd"
    total, faults = 0, []
    for split in ("train", "val", "test"):
        images = open_data(path, split, on_bad_data="skip")
        names = (path / "BCCD" / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert images.image_ids() == names
        faults += images.skipped
        for record in images:
            tree = ElementTree.parse(path / "BCCD" / "Annotations" / f"{record.id}.xml")
            keys = ("xmin", "ymin", "xmax", "ymax")
            expected = [
                (node.findtext("name"), *(float(node.findtext(f"bndbox/{key}") or "nan") for key in keys))
                for node in tree.iter("object")
            ]
            expected = [row for row in expected if row[1] < row[3] and row[2] < row[4]]
            found = zip(record.labels, record.boxes.tolist(), strict=True)
            assert [(images.class_names[label], *box) for label, box in found] == expected
            total += len(expected)
    assert total + len(faults) == 4888
    assert {(f.kind, f.where.split("/")[-1].split(".")[0]) for f in faults} == {
        ("box-degenerate", "BloodImage_00338"),
        ("box-degenerate", "BloodImage_00343"),
    }
    with pytest.raises(BadData, match="BloodImage_00343.xml object 4"):
        open_data(path, "train")


def test_which_splits_to_train_on(tmp_path: Path) -> None:
    write_coco(tmp_path)
    only = training_splits(tmp_path)
    assert (only.train, only.val) == ("train", "train") and "no validation split" in only.note
    write_coco(tmp_path, split="test")
    assert (training_splits(tmp_path).val, training_splits(tmp_path).note) == (
        "test",
        "no split val: validating on test",
    )
    write_coco(tmp_path, split="val")
    assert training_splits(tmp_path).val == "val" and not training_splits(tmp_path).note
    assert training_splits(tmp_path, "val", "train").train == "val"
    with pytest.raises(DataError, match="no split 'nothing'; it has train, val, test"):
        training_splits(tmp_path, "nothing")
    with pytest.raises(DataError, match="several splits; choose one of train, val, test"):
        open_data(tmp_path)


def test_years_that_collide_keep_their_names(tmp_path: Path) -> None:
    for split in ("train2014", "train2017", "val2017"):
        write_coco(tmp_path, split=split)
    assert set(splits(tmp_path)) == {"train2014", "train2017", "val"}


def test_nothing_here(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JPEGImages"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        open_data(tmp_path / "none")


def test_subset_filter_and_pickle(tmp_path: Path) -> None:
    content = coco_content(5)
    content["annotations"][1]["bbox"] = [4, 4, 0.5, 9]
    content["annotations"][2]["ignore"] = 1
    content["annotations"][3]["iscrowd"] = 1
    content["annotations"].append({"id": 9, "image_id": 10, "category_id": 3, "bbox": [0, 0, 9, 9], "area": 0})
    images = open_data(write_coco(tmp_path, content))
    kept = images.filtered(min_size=HEIGHT)
    assert kept.image_ids() == [10, 14] and kept.objects.annotation_ids.tolist() == [1, 5]
    assert len(images.filtered(min_size=HEIGHT + 1)) == 0
    everything = images.filtered(min_size=0, drop_empty=False)
    assert everything.image_ids() == images.image_ids()
    assert everything.objects.annotation_ids.tolist() == [1, 4, 5]  # the crowd region stays
    assert everything[3].crowd.tolist() == [True]
    part = pickle.loads(pickle.dumps(images.subset([3, 0])))
    assert [record.id for record in part] == [13, 10]
    assert [record.annotation_ids.tolist() for record in part] == [[4], [1, 9]]


def test_reading_writes_nothing(tmp_path: Path) -> None:
    write_coco(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    open_data(tmp_path).read(0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
