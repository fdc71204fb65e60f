"""What ``poise check`` says about splits as a whole: those that training opens, their classes, shared pictures."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.write_data import HEIGHT, WIDTH, coco_content, picture, write_coco, write_yolo

from poise.cli import main
from poise.data import BadData, CheckReport, check_data, open_data, read_image, render
from poise.engine.sources import open_sets
from poise.recipes import DataSettings

BOX = "1 0.5 0.5 0.25 0.5"


def kinds(report: CheckReport) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.splits for finding in report.findings}


def three_splits(root: Path, faulty: str) -> Path:
    for i, split in enumerate(("train", "val", "test")):
        write_yolo(root, {f"{split}{i}": BOX + ("\n0 0.5 0.5 0 0.1" if split == faulty else "")}, split=split)
        picture(root / "images" / split / f"{split}{i}.png", shade=10 * i)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [cat, Dog]\n")
    return root


def test_faults_of_a_split_that_training_does_not_open(tmp_path: Path) -> None:
    root = three_splits(tmp_path, "test")
    report = check_data(root)
    assert report.exit_code == 0 and (report.dropped, report.dropped_elsewhere) == (0, 1)
    assert kinds(report)["box-degenerate"] == ("test",) and report.training_splits == ("train", "val")
    text = render(report)
    assert "Nothing would be dropped in training on splits train, val. 1 records of other splits" in text
    assert "(in test)" in text and "Training on" not in text
    assert len(open_sets(DataSettings(path=str(root)))[0]) == 1  # training starts
    with pytest.raises(BadData):
        open_data(root, "test")
    assert main(["check", str(root)]) == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_faults_of_a_split_that_training_opens(tmp_path: Path, split: str) -> None:
    report = check_data(three_splits(tmp_path, split))
    assert report.exit_code == 3 and (report.dropped, report.dropped_elsewhere) == (1, 0)
    assert kinds(report)["box-degenerate"] == (split,)
    assert "Training on splits train, val stops with this list" in render(report)


def other_classes(root: Path, split: str) -> Path:
    for i, name in enumerate(("train", "val", "test")):
        content = coco_content()
        if name == split:
            content["categories"][0]["name"] = "wolf"
        write_coco(root, content, name, shade=20 * i)
    return root


def test_splits_with_other_classes(tmp_path: Path) -> None:
    report = check_data(other_classes(tmp_path / "val", "val"))
    assert report.exit_code == 3 and kinds(report)["split-classes-differ"] == ("val",)
    assert "have different classes: Dog, wolf" in render(report)
    with pytest.raises(ValueError, match="'train' and 'val' have different classes: Dog, wolf"):
        open_sets(DataSettings(path=str(tmp_path / "val")))
    report = check_data(other_classes(tmp_path / "test", "test"))
    assert report.exit_code == 0 and kinds(report)["split-classes-differ"] == ("test",)
    assert len(open_sets(DataSettings(path=str(tmp_path / "test")))[0]) == 2
    assert "split-classes-differ" not in kinds(check_data(other_classes(tmp_path / "same", "none")))


def test_one_picture_in_two_files_and_splits(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_yolo(tmp_path, {"a": BOX})
    write_yolo(tmp_path, {"b": BOX}, split="val")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, Dog]\n")
    Image.fromarray(noise).save(tmp_path / "images" / "train" / "a.png", compress_level=9)
    Image.fromarray(noise).save(tmp_path / "images" / "val" / "b.png", compress_level=0)
    report = check_data(tmp_path)
    finding = next(f for f in report.findings if f.kind == "split-overlap-content")
    assert finding.examples == ("images/val/b.png (in val; equals images/train/a.png in train)",)
    noise[0, 0, 0] ^= 1
    Image.fromarray(noise).save(tmp_path / "images" / "val" / "b.png")
    assert "split-overlap-content" not in kinds(check_data(tmp_path))


def test_boxes_in_pixels_of_a_resized_copy(tmp_path: Path) -> None:
    content = coco_content()
    for image in content["images"]:
        image |= {"width": WIDTH // 2, "height": HEIGHT // 2}
    write_coco(tmp_path, content)
    for full in (True, False):
        report = check_data(tmp_path, full=full)
        finding = next(f for f in report.findings if f.kind == "image-size-differs")
        assert report.exit_code == 3 and finding.count == 2
        assert "is 64x48, but annotated as 32x24" in finding.examples[0] and "resized by 0.5" in finding.examples[0]
    content["images"][0]["height"] = 30
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    examples = next(f for f in check_data(tmp_path).findings if f.kind == "image-size-differs").examples
    assert "resized" not in examples[0] and "resized" in examples[1]


def deep_color(path: Path, pixels: np.ndarray) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    packed = [
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in [*chunks, (b"IEND", b"")]
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@pytest.mark.parametrize("kind", ["gray png", "gray tif", "color png"])
def test_scenes_of_12_bits_in_files_of_16(tmp_path: Path, kind: str) -> None:
    scene = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 4096).astype(np.uint16)
    suffix = kind.split()[1]
    for factor, dark in ((1, True), (16, False)):
        root = tmp_path / str(factor)
        write_yolo(root, {"a": BOX})
        (root / "images" / "train" / "a.png").unlink()
        path = root / "images" / "train" / f"a.{suffix}"
        if kind.startswith("gray"):
            Image.fromarray(scene * factor).save(path)
        else:
            deep_color(path, np.repeat((scene * factor)[:, :, None], 3, 2))
        report = check_data(root)
        assert ("image-dark" in kinds(report)) == dark and report.exit_code == 0
        assert (int(read_image(path).max()) <= 15) == dark
