"""Writes the demo data to disk in the layout of COCO."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.demo.scenes import SHAPES, STYLES, DemoScene, demo_scene

VERSION = 2  # raised when the same settings give other pictures
SPLITS = ("train", "val", "test")
SPLIT_IDS = 1_000_000  # image ids of the second split begin here, of the third at twice this: no id is in two splits
MARKER = "demo.json"


def write_demo_data(
    out: str | Path,
    train: int = 600,
    val: int = 150,
    seed: int = 0,
    *,
    size: int = 320,
    style: str = "hard",
    test: int = 0,
    classes: str = "shapes",
) -> Path:
    """Write detection scenes with COCO annotations; existing data of the same settings is kept as it is.

    The folder appears complete or not at all: ``annotations/instances_{train,val}.json``, ``train/*.jpg``,
    ``val/*.jpg``, the same for ``test`` where it has images, and ``demo.json``, which states the settings.

    Args:
        out: folder to make.
        train: images of the training split. Image i depends on ``seed``, split and i only.
        val: images of the validation split.
        seed: of all random choices.
        size: greatest side of an image in pixels; objects grow with it.
        style: ``"hard"`` (objects from 8 px, crowds, much clutter), or ``"plain"`` (objects of 40 to 80 px), which a
            small network learns within minutes.
        test: images of a test split; 0: none.
        classes: ``"shapes"`` (disc, ring, star, … eight) or ``"more_shapes"`` (heart, arrow, house, … sixteen others).

    Returns:
        The folder.

    Raises:
        ValueError: a number makes no sense.
        FileExistsError: the folder holds something else.
    """
    if min(train, val) < 1 or test < 0 or size < 64 or seed < 0:
        raise ValueError(
            f"train={train} and val={val} must be at least 1, size={size} at least 64, seed={seed} and test={test} at "
            "least 0"
        )
    if style not in STYLES:
        raise ValueError(f"style='{style}' is none of {', '.join(STYLES)}")
    if classes not in SHAPES:
        raise ValueError(f"classes='{classes}' is none of {', '.join(SHAPES)}")
    out = Path(out)
    settings = {"version": VERSION, "train": train, "val": val, "seed": seed, "size": size, "style": style}
    if test:
        settings["test"] = test
    if classes != "shapes":
        settings["classes"] = classes
    if _is_done(out, settings):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(partial, settings)
        partial.chmod(0o755)
        _move(partial, out, settings)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _is_done(out: Path, settings: dict[str, Any]) -> bool:
    """Whether ``out`` holds this data; an error if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(f"{out} exists and is not demo data: choose another folder") from None
    if found != settings:
        raise FileExistsError(f"{out} holds demo data of other settings ({found}): choose another folder or remove it")
    return True


def _move(partial: Path, out: Path, settings: dict[str, Any]) -> None:
    """Give the finished folder its name; if another process was faster with the same data, its work is kept."""
    try:
        if out.is_dir():
            out.rmdir()  # it is empty
        os.rename(partial, out)
    except OSError:
        if not _is_done(out, settings):
            raise


def _write(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "annotations").mkdir()
    for number, split in enumerate(SPLITS):
        if split not in settings:
            continue
        (folder / split).mkdir()
        scenes = [(settings["seed"], number, index) for index in range(settings[split])]
        document = _document(folder / split, scenes, settings)
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
    (folder / MARKER).write_text(json.dumps(settings), encoding="utf-8")


def _document(folder: Path, seeds: list[tuple[int, int, int]], settings: dict[str, Any]) -> dict[str, Any]:
    """Write the images of a split and return its annotations as a COCO document."""
    style, classes = STYLES[settings["style"]], SHAPES[settings.get("classes", "shapes")]
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, parts in enumerate(seeds, 1):
        rng = np.random.default_rng(parts)
        scene = demo_scene(rng, settings["size"], style, classes)
        name = f"{number:06d}.jpg"
        image_id = number + SPLIT_IDS * parts[1]
        (folder / name).write_bytes(_jpeg(scene, quality=int(rng.integers(80, 96))))
        images.append({"id": image_id, "file_name": name, "width": scene.image.width, "height": scene.image.height})
        annotations += _annotations(scene, image_id, len(annotations) + 1)
    return {
        "info": {"description": "poise demo data: generated scenes, free of rights"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name, "supercategory": "shape"} for k, name in enumerate(classes, 1)],
    }


def _jpeg(scene: DemoScene, quality: int) -> bytes:
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _annotations(scene: DemoScene, image_id: int, first_id: int) -> list[dict[str, object]]:
    return [
        {
            "id": first_id + k,
            "image_id": image_id,
            "category_id": found.label + 1,
            "bbox": list(found.box),
            "area": found.area,
            "iscrowd": int(found.crowd),
            "segmentation": [],
        }
        for k, found in enumerate(scene.objects)
    ]
