"""Several data sets as one, and the map of class names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.write_data import coco_content, picture, voc_object, write_coco, write_voc, write_yolo

from poise.data import DataError, ImageSet, open_data, open_for_evaluation
from poise.data.check_joined import check_joined
from poise.data.class_map import map_classes
from poise.data.joining import missing_annotations, source_names
from poise.data.packed import read_annotations, write_annotations
from poise.engine.sources import open_sets
from poise.engine.validation import fingerprint
from poise.evaluate import measure_coco, write_results
from poise.recipes import DataSettings, load_recipe

BOX = "0 0.5 0.5 0.2 0.2"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")  # Dog (7) in image 11, cat (3) in image 10


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "yolo", {"a": BOX, "b": "1 0.5 0.5 0.2 0.2"}, "[horse, CAT]")


def test_classes_are_joined_by_name_and_images_keep_their_origin(coco: Path, yolo: Path, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc", {"10": voc_object("Dog"), "11": voc_object("cat")})
    joined = open_data([coco, yolo, voc], "train")
    assert joined.class_names == ("cat", "Dog", "horse") and joined.category_ids == (1, 2, 3)
    stems = [f"yolo/{joined.path(i).relative_to(yolo).with_suffix('')}" for i in (2, 3)]
    assert joined.image_ids() == ["coco/10", "coco/11", *stems, "voc/10", "voc/11"]
    labels = {joined.image_id(i): [joined.class_names[k] for k in joined[i].labels] for i in range(6)}
    assert [labels[i] for i in ("coco/10", "coco/11")] == [["cat"], ["Dog"]]
    assert sorted(labels["voc/10"] + labels["voc/11"]) == ["Dog", "cat"]
    assert [joined.source_id(i) for i in (0, 1)] == [("coco", 10), ("coco", 11)], "a number stays one"
    assert joined.source_id(5) == ("voc", "11")
    assert all(joined.path(i).is_file() for i in range(6)) and joined.format == "coco+yolo+voc"
    alone = [open_data(path, "train") for path in (coco, yolo, voc)]
    pictures = [joined[i].boxes.tolist() for i in range(6)]
    assert pictures == [one[i].boxes.tolist() for one in alone for i in range(2)]

    truth = joined.to_coco()
    assert truth["images"][0]["source"] == "coco" and truth["images"][0]["source_id"] == 10
    assert sorted(one["id"] for one in truth["annotations"]) == [1, 2, 3, 4, 5, 6]
    found = [{"image_id": "coco/11", "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]
    write_results(found, tmp_path / "found.json", truth)
    (written,) = json.loads((tmp_path / "found.json").read_text())
    assert (written["source"], written["source_id"], written["category"]) == ("coco", 11, "Dog")
    assert open_data([coco], "train").image_ids() == [10, 11], "one data set keeps its ids"
    with pytest.raises(DataError, match="given 2 times"):
        open_data([coco, coco], "train")


def test_ids_and_case_are_kept_where_they_agree(tmp_path: Path, coco: Path) -> None:
    other = coco_content()
    other["categories"] = [{"id": 7, "name": "Dog"}, {"id": 9, "name": "DOG"}, {"id": 3, "name": "cat"}]
    joined = open_data([coco, write_coco(tmp_path / "other", other)], "train")
    assert joined.category_ids == (3, 7, 9) and joined.class_names == ("cat", "Dog", "DOG")
    assert source_names([Path("/a/data"), Path("/b/data"), Path("/c/x")]) == ["a-data", "b-data", "x"]


def test_a_set_without_annotations_of_a_class_is_named(coco: Path, yolo: Path) -> None:
    texts = missing_annotations(open_data([coco, yolo], "train"))
    assert len(texts) == 2
    assert "coco does not annotate horse: objects of these classes in its 2 images would count as" in texts[0]
    assert "yolo does not annotate Dog" in texts[1]
    _, _, remarks = open_sets(DataSettings((str(coco), str(yolo))))
    assert all(text in remarks for text in texts)
    assert not missing_annotations(open_data([coco, yolo], "train", class_map={"horse": None, "Dog": None}))


def test_a_class_map_merges_drops_and_ignores(coco: Path) -> None:
    images = open_data(coco, "train")
    merged = map_classes(images, {"cat": "animal", "Dog": "animal"})
    assert merged.class_names == ("animal",) and merged.category_ids == (3,) and merged.num_objects == 2
    dropped = map_classes(images, {"Dog": None})
    assert dropped.class_names == ("cat",) and dropped.objects_per_image.tolist() == [1, 0] and len(dropped) == 2
    swapped = map_classes(images, {"cat": "Dog", "Dog": "cat"})
    assert [swapped.class_names[one.labels[0]] for one in swapped] == ["Dog", "cat"]
    with pytest.raises(DataError, match="no class 'Dogs', did you mean 'Dog'"):
        open_data(coco, "train", class_map={"Dogs": "dog"})
    with pytest.raises(DataError, match="drops all classes"):
        open_data(coco, "train", class_map={"Dog": None, "cat": "null"})
    assert DataSettings(classes={"Dog": "null"}).classes == {"Dog": None}


def test_ignored_objects_are_regions_of_every_class(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"].append({"id": 2, "image_id": 10, "category_id": 7, "bbox": [30, 10, 20, 20], "area": 400})
    content["categories"].append({"id": 9, "name": "horse"})
    images = open_data(write_coco(tmp_path / "data", content), "train", class_map={"Dog": "ignore"})
    assert images.class_names == ("cat", "horse") and images[0].crowd.tolist() == [False, True]
    truth = images.to_coco()
    regions = [one for one in truth["annotations"] if one["iscrowd"]]
    assert [one["category_id"] for one in regions] == [3, 9] and len({one["id"] for one in truth["annotations"]}) == 3
    cat = {"image_id": 10, "category_id": 3, "bbox": [4.5, 5.25, 20, 10], "score": 0.5}
    inside = [{**cat, "bbox": [30 + i, 10, 10, 10], "score": 0.9} for i in range(3)]
    assert measure_coco(truth, [cat, *inside]).metrics.ap == pytest.approx(1), (
        "any number of detections inside is not counted"
    )
    write_annotations(images, tmp_path / "train.annotations.npz", {})
    assert read_annotations(tmp_path / "train.annotations.npz").to_coco()["annotations"] == truth["annotations"]


def test_lists_of_lvis_follow_the_classes(tmp_path: Path) -> None:
    content = coco_content(4)
    content["categories"] = [{"id": i, "name": n, "frequency": f} for i, n, f in ((3, "cat", "r"), (7, "Dog", "f"))]
    lists = [([7], []), ([], []), ([3], [7]), ([], [])]  # image 10: cat alone; 11: Dog, cat unknown; 12: cat; 13: Dog
    for image, (negative, partial) in zip(content["images"], lists, strict=True):
        image |= {"neg_category_ids": negative, "not_exhaustive_category_ids": partial}
    content["annotations"] = content["annotations"][:2]
    images = open_data(write_coco(tmp_path / "lvis", content), "train", class_map={"cat": "animal", "Dog": "animal"})
    rows = [(one.negative_category_ids, one.not_exhaustive_category_ids) for one in images]
    assert rows == [((), ()), ((), (3,)), ((), (3,)), ((), ())]
    assert images.categories[0].frequency == "f"
    with_lists = [images, open_data(write_coco(tmp_path / "plain", coco_content(2)), "train")]
    assert open_data([one.root for one in with_lists], "train").images.negative is None


def test_training_and_evaluation_of_several_sets(tmp_path: Path, coco: Path, yolo: Path) -> None:
    write_coco(coco, split="val", shade=40)
    train, val, remarks = open_sets(DataSettings((str(coco), str(yolo))))
    assert (len(train), train.name, len(val or ()), (val or train).name) == (4, "train", 2, "val")
    assert val is not None and (val.class_names, val.category_ids) == (train.class_names, train.category_ids)
    assert val.image_ids() == ["coco/10", "coco/11"] and any("no validation split" in text for text in remarks)
    train, val, _ = open_sets(DataSettings((str(coco), str(yolo)), val_share=0.5))
    assert val is not None and len(train) == 3 and len(val) == 3 and val.image_id(2).startswith("yolo/")

    run = tmp_path / "run"
    run.mkdir()
    (run / "val_images.txt").write_text(f"coco/10.png\ncoco/11.png\nyolo/{val.path(2).name}\n")
    again, note = open_for_evaluation([coco, yolo], run=run)
    assert again.image_ids() == val.image_ids() and "yolo: using the 1 images" in note
    held, _ = open_for_evaluation(yolo, run=run)
    assert [held.path(i) for i in range(len(held))] == [val.path(2)], "one of the sets alone"
    left, note = open_for_evaluation([coco, yolo])
    assert left.image_ids() == ["coco/10", "coco/11"] and "yolo: no split 'val' or 'test', left out" in note
    mapped, _ = open_for_evaluation(coco, trained_with={"Dog": "cat", "horse": "cat"})
    assert mapped.class_names == ("cat",), "a stored map may name classes that other data lacks"


def test_the_order_of_sets_is_part_of_the_fingerprint(coco: Path, yolo: Path) -> None:
    def digest(*paths: Path) -> str:
        return fingerprint(open_data(paths, "train"))

    assert digest(coco, yolo) == digest(coco, yolo) != digest(yolo, coco)
    before = fingerprint(open_data(coco, "train"))
    content = coco_content()
    content["annotations"][0]["bbox"][0] += 1
    write_coco(coco, content)
    assert fingerprint(open_data(coco, "train")) != before


def test_settings_name_several_sets(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data:\n  train: [a, b]\n  classes: {car: vehicle, person: null}\n")
    data = load_recipe(tmp_path / "recipe.yaml").data
    assert data.paths == ("a", "b") and data.train == "" and data.classes == {"car": "vehicle", "person": None}
    assert DataSettings(("a",)).path == "a" and DataSettings().paths == ()


def test_check_reports_pictures_that_two_sets_share(coco: Path, yolo: Path) -> None:
    write_coco(coco, split="val", shade=77)
    picture(yolo / "images" / "train" / "a.png", shade=77)
    report = check_joined([coco, yolo])
    assert report.classes["cat"] == {"coco": 1, "yolo": 1} and report.classes["horse"] == {"coco": 0, "yolo": 1}
    assert "1 validation image of one data set are training images of another (coco/10.png)" in report.warnings[-1]
    assert isinstance(open_data([coco, yolo], "train").subset(np.array([3])), ImageSet)
