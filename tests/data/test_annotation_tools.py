"""Every export of the tutorial's table of annotation tools is read: one image with one box, as the tool lays it out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from poise.data import open_data, splits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BOX = [4.0, 5.0, 14.0, 17.0]
YOLO = "0 0.225 0.3666667 0.25 0.4\n"
VOC = (
    "<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size><object>"
    "<name>cat</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>14</xmax><ymax>17</ymax></bndbox></object></annotation>"
)
VOC_FOLDERS = {"Annotations/a.xml": VOC, "JPEGImages/a.jpg": "", "ImageSets/Main/default.txt": "a\n"}
DARKNET = "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
ROBOFLOW = "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n"


def coco(name: str = "a.jpg") -> str:
    """A COCO document of one image."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 10, 12], "area": 120, "iscrowd": 0}
    image = {"id": 1, "file_name": name, "width": 40, "height": 30}
    return json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]})


EXPORTS: dict[str, dict[str, str]] = {  # contents of the files of an export; those of images are drawn
    "CVAT, COCO 1.0": {"annotations/instances_default.json": coco(), "images/default/a.jpg": ""},
    "CVAT, YOLO 1.1": {
        "obj.data": DARKNET,
        "obj.names": "cat\n",
        "train.txt": "data/obj_train_data/a.jpg\n",
        "obj_train_data/a.txt": YOLO,
        "obj_train_data/a.jpg": "",
    },
    "CVAT, Ultralytics YOLO Detection 1.0": {
        "data.yaml": "names:\n  0: cat\npath: .\ntrain: train.txt\n",
        "train.txt": "data/images/train/a.jpg\n",
        "labels/train/a.txt": YOLO,
        "images/train/a.jpg": "",
    },
    "CVAT, PASCAL VOC 1.1": {**VOC_FOLDERS, "labelmap.txt": "# label:color_rgb:parts:actions\ncat:1,2,3::\n"},
    "Label Studio, YOLO": {"classes.txt": "cat\n", "notes.json": "{}", "labels/a.txt": YOLO, "images/a.jpg": ""},
    "Label Studio, COCO": {"result.json": coco("images/a.jpg"), "images/a.jpg": ""},
    "Label Studio, Pascal VOC XML": {"Annotations/a.xml": VOC, "images/a.jpg": ""},
    "Roboflow, COCO": {
        f"{split}/{name}": content
        for split in ("train", "valid")
        for name, content in (("_annotations.coco.json", coco()), ("a.jpg", ""))
    },
    "Roboflow, YOLO": {
        "data.yaml": ROBOFLOW,
        **{f"{split}/images/a.jpg": "" for split in ("train", "valid")},
        **{f"{split}/labels/a.txt": YOLO for split in ("train", "valid")},
    },
    "Roboflow, Pascal VOC": {
        f"{split}/{name}": content for split in ("train", "valid") for name, content in (("a.xml", VOC), ("a.jpg", ""))
    },
    "labelImg, PascalVOC": {"a.xml": VOC, "a.jpg": ""},
    "labelImg, YOLO": {"classes.txt": "cat\n", "a.txt": YOLO, "a.jpg": ""},
    "FiftyOne, COCODetectionDataset": {"labels.json": coco(), "data/a.jpg": ""},
    "VGG Image Annotator, COCO": {"via_export_coco.json": coco(), "a.jpg": ""},
}


def rows() -> list[str]:
    """The tools and formats of the table."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `", PAGE.read_text(encoding="utf-8"), re.M)
    return [f"{tool}, {format}" for tool, format in found if tool != "tool"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    def written(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / "export" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".jpg":
                Image.new("RGB", (40, 30), (90, 90, 90)).save(path)
            else:
                path.write_text(content, encoding="utf-8")
        return tmp_path / "export"

    return written


def test_the_table_lists_these_exports() -> None:
    assert sorted(row for row in rows() if row in EXPORTS) == sorted(EXPORTS)


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_read(export: str, write: Callable[[dict[str, str]], Path]) -> None:
    folder = write(EXPORTS[export])
    for split in splits(folder):
        images = open_data(folder, split)
        assert images.class_names == ("cat",)
        assert [images[i].boxes.tolist() for i in range(len(images))] == [[pytest.approx(BOX, abs=1e-3)]]
