"""What users reported about other trainers, tried on poise; docs/data.md lists the reports and what came of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.reading import objects_of, read_everywhere, tiny_detector
from PIL import Image
from support.write_data import HEIGHT, WIDTH, coco_content, voc_object, write_coco, write_voc, write_yolo

from poise.cli import main
from poise.data import BadData, check_data, open_data, read_image
from poise.engine.sources import open_sets
from poise.evaluate import match_categories
from poise.recipes import DataSettings

BOX = (4.5, 5.25, 24.5, 15.25)


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (5, 900), (2, 0)])
def test_d_fine_89_category_ids_of_any_kind(tmp_path: Path, ids: tuple[int, int]) -> None:
    content = coco_content()
    for category, annotation, number in zip(content["categories"], reversed(content["annotations"]), ids, strict=True):
        category["id"] = annotation["category_id"] = number
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path) == {"train/10.png": [("cat", BOX)], "train/11.png": [("Dog", BOX)]}
    assert open_data(tmp_path).category_ids == tuple(sorted(ids))


def test_mmdetection_11858_classes_are_those_of_the_data(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [{"id": 3, "name": "rivet"}, {"id": 7, "name": "person"}]
    write_coco(tmp_path, content)
    train_set, _, _ = open_sets(DataSettings(path=str(tmp_path), val="none"))
    assert train_set.class_names == ("rivet", "person")
    assert objects_of(train_set) == {"train/10.png": [("rivet", BOX)], "train/11.png": [("person", BOX)]}


def test_yolov5_1076_edited_labels_are_read_anew(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "1 0.5 0.5 0.5 0.5"})
    for cache in ("labels/train.cache", "labels/train/labels.cache"):
        (tmp_path / cache).write_bytes(b"stale")
    assert [len(boxes) for boxes in read_everywhere(tmp_path).values()] == [1, 1]
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.25 0.25 0.5 0.5\n0 0.5 0.5 0.5 0.5")
    (tmp_path / "labels" / "train" / "b.txt").unlink()
    first, second = read_everywhere(tmp_path).values()
    assert first[0] == ("Dog", (0.0, 0.0, WIDTH / 2, HEIGHT / 2)) and len(first) == 2 and second == []
    assert "image-without-label" in {finding.kind for finding in check_data(tmp_path).findings}


@pytest.mark.parametrize("stem", ["images-1", "images", "labels (2)", "train"])
def test_darknet_1703_images_called_images(tmp_path: Path, stem: str) -> None:
    root = tmp_path / "images" / "labels"
    write_yolo(root, {stem: "1 0.5 0.5 0.5 0.5"})
    expected = ("Dog", (WIDTH / 4, HEIGHT / 4, 3 * WIDTH / 4, 3 * HEIGHT / 4))
    assert read_everywhere(root) == {f"images/train/{stem}.png": [expected]}


@pytest.mark.parametrize("name", ["file with spaces", "缺陷0001", "veículo", "지단", "img (1)", "50%_off#1", "it's"])
def test_ultralytics_4516_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    write_yolo(tmp_path / name, {name: "1 0.5 0.5 0.5 0.5"})
    assert list(read_everywhere(tmp_path / name)) == [f"images/train/{name}.png"]
    write_voc(tmp_path / f"voc {name}", {name: voc_object()})
    assert list(read_everywhere(tmp_path / f"voc {name}")) == [f"JPEGImages/{name}.jpg"]
    content = coco_content(1)
    content["images"][0]["file_name"] = f"{name}.png"
    assert list(read_everywhere(write_coco(tmp_path / f"coco {name}", content))) == [f"train/{name}.png"]
    (result,) = tiny_detector().predict(tmp_path / name / "images" / "train" / f"{name}.png")
    assert result.size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA", "1", "CMYK"])
def test_ultralytics_1039_25150_24750_modes_of_pictures(tmp_path: Path, mode: str) -> None:
    image = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB").convert(mode)
    sources: list[Any] = [image]
    if mode in ("L", "RGBA"):
        sources.append(np.asarray(image))
    if mode != "CMYK":
        image.save(tmp_path / "a.png")
        sources.append(tmp_path / "a.png")
    results = [tiny_detector().predict(source)[0].image for source in sources]
    assert all(one.shape == (3, HEIGHT, WIDTH) and one.equal(results[0]) for one in results)


def test_yolov5_2446_jpegs_with_several_pictures(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "blue"))
    write_yolo(tmp_path, {"a": "1 0.5 0.5 0.5 0.5", "b": "0 0.5 0.5 0.5 0.5"})
    for stem, suffix in (("a", ".jpg"), ("b", ".mpo")):
        (tmp_path / "images" / "train" / f"{stem}.png").unlink()
        path = tmp_path / "images" / "train" / f"{stem}{suffix}"
        first.save(path, "MPO", save_all=True, append_images=[second])
        red, green, blue = read_image(path).float().mean((1, 2)).tolist()
        assert red > 240 and max(green, blue) < 15
    assert list(read_everywhere(tmp_path)) == ["images/train/a.jpg", "images/train/b.mpo"]


@pytest.mark.parametrize("area", [0, 0.0, -1])
def test_efficientdet_pytorch_10_areas_that_nobody_filled_in(tmp_path: Path, area: float) -> None:
    content = coco_content()
    for annotation in content["annotations"]:
        annotation["area"] = area
    write_coco(tmp_path, content)
    assert read_everywhere(tmp_path) == {"train/10.png": [("cat", BOX)], "train/11.png": [("Dog", BOX)]}
    assert open_data(tmp_path).objects.areas.tolist() == [200.0, 200.0]
    assert "areas-not-positive" in {finding.kind for finding in check_data(tmp_path).findings}
    filtered, _, _ = open_sets(DataSettings(path=str(tmp_path), val="none", keep_empty=False))
    assert len(filtered) == 2 and filtered.num_objects == 2


def test_fasterrcnn_pipeline_44_a_box_without_width_is_named(tmp_path: Path) -> None:
    write_voc(tmp_path, {f"{i:03}": voc_object() for i in range(20)})
    flat = (tmp_path / "Annotations" / "013.xml").read_text().replace("<xmax>25<", "<xmax>5<")
    (tmp_path / "Annotations" / "013.xml").write_text(flat)
    with pytest.raises(
        BadData, match=r"box-degenerate: Annotations/013\.xml object 1 \(x1, y1, x2, y2 = 5, 6, 5, 16\)"
    ):
        open_sets(DataSettings(path=str(tmp_path), val="none"))
    assert open_data(tmp_path, on_bad_data="skip").num_objects == 19


def test_icevision_328_913_images_without_boxes_are_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images without objects, and crops from which every object has gone."""
    write_yolo(tmp_path / "data", {"a": "1 0.5 0.5 0.1 0.1", "b": "", "c": None, "d": "0 0.9 0.9 0.1 0.1"})
    words = (
        "--model.options backbone test_byobnet channels 8 depth 1 --model.backbone-weights none --image-size 64".split()
    )
    words += "--epochs 2 --batch-size 1 --workers 0 --device cpu --data.val none --augment.scale-jitter 3 4".split()
    assert (
        main(["train", "atss_r18_fpn", *words, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]) == 0
    )
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss/total")]) for row in rows[1:]]
    assert len(losses) == 2 and np.isfinite(losses).all()


def test_detectron2_1531_categories_that_the_data_lacks(recwarn: pytest.WarningsRecorder) -> None:
    categories = [{"id": 12, "name": "cat"}, {"id": 5, "name": "dog"}]
    assert match_categories(("dog", "bird", "cat"), (1, 34, 2), categories) == [5, None, 12]
    assert "bird" in str(recwarn.pop().message)


def test_ultralytics_8515_equal_lines_are_kept_and_noted(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n"})
    assert len(read_everywhere(tmp_path)["images/train/a.png"]) == 3
    finding = next(one for one in check_data(tmp_path).findings if one.kind == "box-duplicated")
    assert (finding.count, finding.severity) == (1, "note") and "labels/train/a.txt line 3" in finding.examples[0]


def test_each_report_of_the_page_has_a_test(repository: Path) -> None:
    page = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| [") and "/issues/" in line]
    numbers = [re.findall(r"/issues/(\d+)", row) for row in rows]
    tests = [name for name in globals() if name.startswith("test_")]
    assert len(rows) >= 10
    for row in numbers:
        assert any(all(f"_{number}_" in test for number in row) for test in tests), row


def test_json_of_the_check_is_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(write_coco(tmp_path)), "--json"])
    assert json.loads(capsys.readouterr().out)["training_splits"] == ["train"]
