"""Tiny data sets in every layout, written with Pillow and json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 64, 48


def picture(
    path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), shade: int = 0, orientation: int | None = None
) -> Path:
    """A gradient picture; another ``shade`` gives another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.linear_gradient("L").resize(size).convert("RGB").point(lambda value: (value + shade) % 256)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation is not None else {}))
    return path


def coco_content(images: int = 2) -> dict[str, Any]:
    """``images`` pictures with one object each; categories 7 and 3, in this order."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(10, 10 + images)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": 9 + i,
                "category_id": 3 if i % 2 else 7,
                "bbox": [4.5, 5.25, 20, 10],
                "area": 150.5,
                "iscrowd": 0,
            }
            for i in range(1, 1 + images)
        ],
        "categories": [{"id": 7, "name": "Dog", "supercategory": "animal"}, {"id": 3, "name": "cat"}],
    }


def write_coco(root: Path, content: dict[str, Any] | None = None, split: str = "train", shade: int = 0) -> Path:
    """``annotations/instances_<split>.json`` and ``<split>/*.png`` for the first record of each image."""
    content = coco_content() if content is None else content
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    for i, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(name, str) and ".." not in name and not (root / split / name).exists():
            picture(root / split / name, shade=shade + i)
    return root


def write_yolo(root: Path, labels: dict[str, str | None], names: str = "[cat, Dog]", split: str = "train") -> Path:
    """``images/<split>`` and ``labels/<split>``; ``None`` writes no label file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(f"path: .\n{split}: images/{split}\nnames: {names}\n")
    for i, (stem, text) in enumerate(labels.items()):
        picture(root / "images" / split / f"{stem}.png", shade=i)
        if text is not None:
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split / f"{stem}.txt").write_text(text)
    return root


def voc_object(name: str = "cat", box: tuple[Any, ...] = (5, 6, 25, 16), difficult: int = 0) -> str:
    x1, y1, x2, y2 = box
    corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def write_voc(root: Path, objects: dict[str, str], split: str = "train") -> Path:
    """One picture and one annotation file for each stem, all in ``ImageSets/Main/<split>.txt``."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i, (stem, text) in enumerate(objects.items()):
        picture(root / "JPEGImages" / f"{stem}.jpg", shade=i)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{stem}.jpg</filename>{size}{text}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(xml)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in objects))
    return root
