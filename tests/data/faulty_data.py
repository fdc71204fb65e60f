"""Data sets with one fault each, of every kind that there is: in the images, in the annotations, in the files."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from data.test_faults import DROPPED, NOTES, Change, edit
from PIL import Image
from support.write_data import HEIGHT, WIDTH, coco_content, picture, voc_object, write_coco, write_voc, write_yolo

Effect = Literal["record", "split", "image", "note"]
"""A record is refused or left out at the start; the split is refused; an image is found to be bad when it is decoded;
nothing changes."""


@dataclass(frozen=True)
class Case:
    """A fault, by the name that ``poise check`` gives it, and how a data set with two images gets it."""

    name: str
    kind: str
    effect: Effect
    write: Callable[[Path], object]

    @property
    def format(self) -> str:
        return self.name.split()[0]


def _coco(change: Change, images: int = 3) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        content = coco_content(images)
        change(content)
        write_coco(root, content)

    return write


def _named(name: str) -> Callable[[Path], object]:
    """The first image's name changed in the annotations alone."""

    def write(root: Path) -> None:
        content = coco_content(3)
        write_coco(root, content)
        content["images"][0]["file_name"] = name
        (root / "annotations" / "instances_train.json").write_text(json.dumps(content))

    return write


def _damaged(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: damage(write_coco(root, coco_content(3)) / "train" / "10.png")


def _encoded(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def _half(kind: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(_encoded(kind)[: len(_encoded(kind)) // 2])


def _chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def _png_header(width: int, height: int) -> Callable[[Path], object]:
    """The picture's size in its header exchanged, with the right checksum."""

    def write(path: Path) -> None:
        whole = path.read_bytes()
        sizes = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        path.write_bytes(whole[:8] + _chunk(b"IHDR", sizes + whole[24:29]) + whole[33:])

    return write


def _text_bomb(path: Path) -> None:
    """A PNG whose compressed comment unpacks to 30 MB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(30)) + packer.flush()
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + _chunk(b"zTXt", b"Comment\0\0" + packed) + whole[33:])


def _flipped_pixels(path: Path) -> None:
    content = bytearray(_encoded("PNG"))
    content[200] ^= 0xFF
    path.write_bytes(content)


def _in_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.unlink()
        make(path)

    return write


def _link_out(path: Path) -> None:
    os.symlink(picture(path.parents[2] / "elsewhere" / "x.png"), path)


def _yolo(line: str) -> Callable[[Path], object]:
    return lambda root: write_yolo(root, {"a": f"1 0.5 0.5 0.2 0.2\n{line}\n", "b": "0 0.5 0.5 0.2 0.2", "c": ""})


def _yolo_file(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        write_yolo(root, {"a": "0 0.5 0.5 0.2 0.2", "b": "1 0.5 0.5 0.2 0.2", "c": ""})
        change(root)

    return write


def _voc(text: str) -> Callable[[Path], object]:
    return lambda root: write_voc(root, {"a": voc_object() + text, "b": voc_object("Dog")})


def _voc_file(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        write_voc(root, {"a": voc_object(), "b": voc_object("Dog"), "c": voc_object()})
        change(root)

    return write


def _leads_out(name: str) -> Callable[[Path], object]:
    """A file of the data set replaced by a link to its copy outside."""

    def change(root: Path) -> None:
        target = root.parent / "elsewhere.file"
        (root / name).rename(target)
        os.symlink(target, root / name)

    return change


def _numbers(mode: str, value: float) -> Callable[[Path], object]:
    array = np.full((HEIGHT, WIDTH), value, np.float32 if mode == "F" else np.int32)
    return lambda path: Image.fromarray(array).save(path, "TIFF")


IMAGES = [
    ("of 0 bytes", "image-empty", lambda path: path.write_bytes(b"")),
    ("PNG cut off", "image-truncated", _half("PNG")),
    ("JPEG cut off", "image-truncated", _half("JPEG")),
    ("WEBP cut off", "image-unreadable", _half("WEBP")),
    ("TIFF cut off", "image-unreadable", lambda path: path.write_bytes(_encoded("TIFF")[:100])),
    ("BMP cut off", "image-truncated", _half("BMP")),
    ("PNG without pixels", "image-unreadable", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99)),
    ("JPEG without pixels", "image-unreadable", lambda path: path.write_bytes(b"\xff\xd8\xff" + b"\0" * 50)),
    ("with flipped bits", "image-unreadable", _flipped_pixels),
    ("GIF", "image-unsupported", lambda path: path.write_bytes(_encoded("GIF"))),
    ("text", "image-unsupported", lambda path: path.write_text("<svg><script>alert(1)</script></svg>")),
    ("archive", "image-unsupported", lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 60)),
    ("of floating-point numbers", "image-unsupported", _numbers("F", 0.5)),
    ("of 32 bits", "image-unsupported", _numbers("I", 70_000)),
    ("of another size", "image-size-differs", lambda path: picture(path, (WIDTH, HEIGHT + 1))),
    ("of no width", "image-unreadable", _png_header(0, HEIGHT)),
    ("that unpacks to 10 GB", "image-too-large", _png_header(60_000, 60_000)),
    ("whose comment unpacks to 30 MB", "image-unreadable", _text_bomb),
    ("that is a folder", "image-unreadable", _in_place(lambda path: path.mkdir())),
    ("that is a pipe", "image-empty", _in_place(os.mkfifo)),
]

CASES = [
    *(Case(f"coco image {name}", kind, "image", _damaged(damage)) for name, kind, damage in IMAGES),
    Case("coco image missing", "image-missing", "record", _damaged(lambda path: path.unlink())),
    Case("coco image a link out", "image-outside-root", "record", _damaged(_in_place(_link_out))),
    Case("coco image a link to nothing", "image-outside-root", "record", _damaged(_in_place(
        lambda path: os.symlink(path.parents[2] / "nothing.png", path)))),
    Case("coco image of an absolute path", "image-missing", "record", _named("/etc/hosts")),
    Case("coco image of another computer", "image-missing", "record", _named("\\\\host\\share\\x.png")),
    Case("coco image of a reserved name", "image-missing", "record", _named("CON.png")),
    Case("coco image of a name too long", "image-missing", "record", _named("a" * 5000 + ".png")),
    Case("coco image above the root", "image-outside-root", "record", _named("../../x.png")),
    *(Case(f"coco record {number} {kind}", kind, "record", _coco(change))
      for number, (kind, change, left) in enumerate(DROPPED) if left[0] == 2),
    *(Case(f"coco note {kind}", kind, "note", _coco(change, 2)) for kind, change in NOTES),
    Case("coco box beyond float32", "box-nonfinite", "record", _coco(edit("annotations", 0, bbox=[1, 1, 1e300, 5]))),
    Case("coco JSON cut off", "annotations-unreadable", "split", lambda root: _cut(
        write_coco(root) / "annotations" / "instances_train.json")),
    Case("coco JSON a link out", "annotations-unreadable", "split", lambda root: _leads_out(
        "annotations/instances_train.json")(write_coco(root))),
    Case("coco JSON a pipe", "annotations-unreadable", "split", lambda root: _in_place(os.mkfifo)(
        write_coco(root) / "annotations" / "instances_train.json")),
    *(Case(f"yolo line {line!r}", kind, "record", _yolo(line)) for line, kind in (
        ("0 0.5 0.5 0.2", "label-malformed"), ("cat 0.5 0.5 0.2 0.2", "label-malformed"),
        ("2 0.5 0.5 0.2 0.2", "category-unknown"), ("0 32 24 10 10", "label-not-normalized"),
        ("0 0.5 0.5 0 0.2", "box-degenerate"), ("0 0.5 nan 0.2 0.2", "box-nonfinite"))),
    Case("yolo label not UTF-8", "label-unreadable", "record", _yolo_file(
        lambda root: (root / "labels/train/a.txt").write_bytes(b"\xff\xfe\0"))),
    Case("yolo label a link out", "label-unreadable", "record", _yolo_file(_leads_out("labels/train/a.txt"))),
    Case("yolo label without image", "label-without-image", "record", _yolo_file(
        lambda root: (root / "labels/train/more.txt").write_text("0 0.5 0.5 0.1 0.1"))),
    Case("yolo image without label", "image-without-label", "note", _yolo_file(
        lambda root: (root / "labels/train/a.txt").unlink())),
    Case("yolo image a link out", "image-outside-root", "record", _yolo_file(_leads_out("images/train/a.png"))),
    *(Case(f"voc object {kind}", kind, "record", _voc(text)) for text, kind in (
        (voc_object(box=(5, 5, "x", 9)), "object-malformed"), (voc_object(box=(5, 5, 5, 9)), "box-degenerate"),
        (voc_object(box=(5, 5, "nan", 9)), "box-nonfinite"))),
    Case("voc XML cut off", "label-unreadable", "record", _voc_file(lambda root: _cut(root / "Annotations/c.xml"))),
    Case("voc XML with entities", "label-unreadable", "record", _voc_file(lambda root: (
        root / "Annotations/c.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'))),
    Case("voc XML a link out", "label-unreadable", "record", _voc_file(_leads_out("Annotations/c.xml"))),
    Case("voc XML a pipe", "label-unreadable", "record", _voc_file(
        lambda root: _in_place(os.mkfifo)(root / "Annotations/c.xml"))),
    Case("voc XML missing", "label-missing", "record", _voc_file(lambda root: (root / "Annotations/c.xml").unlink())),
    Case("voc list a link out", "annotations-unreadable", "split", _voc_file(_leads_out("ImageSets/Main/train.txt"))),
]  # fmt: skip
"""Objects and images that remain are enough to train on."""


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])
