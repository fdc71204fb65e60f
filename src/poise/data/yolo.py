"""YOLO: ``data.yaml`` with ``train``, ``val``, ``test`` and ``names``; ``images/`` beside ``labels/``.

A label line is ``class x y width height``, center and size divided by the image's, or ``class x1 y1 x2 y2 ...``, a
polygon, of which the box around it is taken. Sizes are read from the image headers, EXIF orientation applied.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.assemble import Found, assemble
from poise.data.errors import BadImage, DataError
from poise.data.faults import FaultLog
from poise.data.files import MEBIBYTE, is_inside, read_text, require_inside
from poise.data.image_set import Category, ImageSet, ObjectColumns
from poise.data.images import SUFFIXES, image_size
from poise.storage import parse_yaml

SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SLACK = 0.01  # of the image's size that rounding may put a coordinate outside [0, 1]


@dataclass
class Rows:
    """Objects of a split while its files are read."""

    owners: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Description:
    """What ``data.yaml`` says."""

    file: Path
    root: Path  # that the splits' paths are relative to
    categories: tuple[Category, ...]
    splits: dict[str, tuple[str, ...]]  # folders or list files of each


def find(path: Path) -> Path | None:
    """The YAML file of a YOLO data set: ``path`` itself or one in the folder that names classes and splits."""
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    named = [path / "data.yaml", path / "data.yml", path / "dataset.yaml"]
    others = sorted({*path.glob("*.yaml"), *path.glob("*.yml")} - set(named))
    for file in [*named, *others]:
        if file.is_file() and (file in named or _describes_data(file)):
            return file
    return None


def _describes_data(file: Path) -> bool:
    try:
        content = _load(file)
    except DataError:
        return False
    return ("names" in content or "nc" in content) and bool(SPLIT_KEYS.keys() & content.keys())


def describe(file: Path) -> Description:
    """Read ``data.yaml``; ``DataError`` where it does not say classes and splits."""
    content = _load(file)
    splits = {}
    for key, name in SPLIT_KEYS.items():
        value = content.get(key)
        parts = value if isinstance(value, list) else [value]
        if value and all(isinstance(part, str) and part for part in parts):
            splits[name] = tuple(parts)
    if not splits:
        raise DataError(f"{file}: names no split; add train: and val: with folders of images")
    return Description(file, _base(file, content.get("path"), splits), _categories(file, content), splits)


def _load(file: Path) -> dict[str, Any]:
    text = read_text(require_inside(file.parent, file), MEBIBYTE)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise DataError(f"{file}: {error}; correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: is not a YOLO description; it needs names: and train:")
    return content


def _base(file: Path, stated: Any, splits: dict[str, tuple[str, ...]]) -> Path:
    """The stated ``path`` where it exists inside the YAML's folder, else that folder itself."""
    home = file.parent
    if isinstance(stated, str) and "\0" not in stated:
        base = home / stated
        if os.path.isdir(base) and is_inside(home, base):
            return base
        if os.path.isdir(base) and not any(os.path.exists(home / part) for parts in splits.values() for part in parts):
            raise DataError(
                f"{file}: its path: {stated} leads out of the folder of the file; put the file into that folder"
            )
    return home


def _categories(file: Path, content: dict[str, Any]) -> tuple[Category, ...]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and isinstance(count, int) and 0 < count < 100_000:
        names = {i: str(i) for i in range(count)}
    if not isinstance(names, dict) or not names:
        raise DataError(f"{file}: has no names; add names: with the classes in order")
    if not all(isinstance(key, int) and isinstance(name, (str, int, float)) for key, name in names.items()):
        raise DataError(f"{file}: names must be a list of names or a mapping of numbers to names")
    return tuple(Category(key, str(names[key])) for key in sorted(names))


def read(name: str, root: Path, description: Description, log: FaultLog) -> ImageSet:
    """One split."""
    found = Found(source=description.file.name, categories=list(description.categories))
    rows = Rows()
    images = list(
        dict.fromkeys(image for part in description.splits[name] for image in _images(description, root, part))
    )
    for image in images:
        _add_image(found, rows, image, root, log)
    _log_orphans(images, root, log)
    _set_objects(found, rows)
    return assemble(name, root, "yolo", found, log)


def _place(description: Description, root: Path, part: str) -> Path:
    """Folder or list of a split; ``../train/images`` is taken from the root, as such files are often written."""
    part = part.replace("\\", "/")  # written on Windows
    candidates = [description.root / part, description.file.parent / part]
    inner = part
    while inner.startswith("../"):
        inner = inner[3:]
        candidates.append(description.root / inner)
    place = next((path for path in candidates if os.path.exists(path) and is_inside(root, path)), None)
    if place is None:
        raise DataError(
            f"{description.file}: {part} is neither a folder nor a list of images inside {root}; correct the path"
        )
    return place


def _images(description: Description, root: Path, part: str) -> Iterator[str]:
    """Images of one folder or list, relative to the root."""
    place = _place(description, root, part)
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES)
        yield from (file.relative_to(root).as_posix() for file in files)
        return
    for line in read_text(place, 1024 * MEBIBYTE).splitlines():
        if text := line.strip():
            yield _listed(text, place.parent, root)


def _listed(text: str, folder: Path, root: Path) -> str:
    """A line of a list file: relative to the list's folder or to the root."""
    text = text.replace("\\", "/")  # written on Windows
    path = folder / text if os.path.exists(folder / text) else root / text
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else text


def label_file(image: str) -> str:
    """``labels/...txt`` of ``images/...jpg``: the last folder called images is exchanged."""
    stem = image.rsplit(".", 1)[0] if "." in image.rsplit("/", 1)[-1] else image
    head, found, tail = f"/{stem}".rpartition("/images/")
    return f"{head}/labels/{tail}.txt"[1:] if found else stem + ".txt"


def _add_image(found: Found, rows: Rows, image: str, root: Path, log: FaultLog) -> None:
    label = label_file(image)
    try:
        size = image_size(root / image) if is_inside(root, root / image) else (0, 0)
    except BadImage as error:
        if error.kind != "image-missing":
            log.add(error.kind, image, error.why)
            return
        size = (0, 0)  # reported when the set is put together
    except ValueError:  # a NUL byte in the name
        size = (0, 0)
    try:
        lines = _label_lines(root, label)
    except DataError as error:
        log.add("label-unreadable", label, str(error))
        return
    found.add_image(image.rsplit(".", 1)[0], image, *size)
    if lines is None:
        log.add("image-without-label", image)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            _add_object(rows, len(found.ids) - 1, line, size, f"{label} line {number}", log)


def _label_lines(root: Path, label: str) -> list[str] | None:
    path = root / label
    if not is_inside(root, path) and os.path.lexists(path):
        raise DataError("leads out of the data folder")
    if not os.path.isfile(path):
        return None
    return read_text(path).splitlines()


def _add_object(rows: Rows, owner: int, line: str, size: tuple[int, int], where: str, log: FaultLog) -> None:
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        log.add("label-malformed", where, "not only numbers")
        return
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        log.add("label-malformed", where, f"{len(values)} columns; 5, or 1 + 2 for each of 3 or more points")
        return
    if not math.isfinite(values[0]) or not values[0].is_integer() or abs(values[0]) >= 2**53:
        log.add("label-malformed", where, f"class {words[0][:40]} is not an integer")
        return
    finite = [value for value in values[1:] if math.isfinite(value)]
    if finite and not (-SLACK <= min(finite) and max(finite) <= 1 + SLACK) and not _negative_side(values):
        log.add("label-not-normalized", where, line[:80])
        return
    rows.owners.append(owner)
    rows.classes.append(int(values[0]))
    rows.boxes.append(_corners(values[1:], *size))
    rows.where.append(where)


def _negative_side(values: list[float]) -> bool:
    """A box of negative width or height is degenerate rather than of another scale."""
    return len(values) == 5 and min(values[3:]) < 0 and all(-SLACK <= value <= 1 + SLACK for value in values[1:3])


def _corners(values: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, w, h = values
        return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    if not all(math.isfinite(value) for value in values):  # min and max would hide it
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = values[::2], values[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height


def _log_orphans(images: list[str], root: Path, log: FaultLog) -> None:
    """Label files in this split's label folders without an image of that name (labelImg's classes.txt is none)."""
    folders = {label_file(image).rpartition("/")[0]: image.rpartition("/")[0] for image in images}
    for labels, pictures in sorted(folders.items()):
        if labels == pictures or not os.path.isdir(root / labels) or not is_inside(root, root / labels):
            continue
        stems = {file.stem for file in (root / pictures).iterdir()} if os.path.isdir(root / pictures) else set()
        stems |= {Path(image).stem for image in images if image.rpartition("/")[0] == pictures}
        for file in sorted((root / labels).glob("*.txt")):
            if file.stem not in stems and file.name != "classes.txt":
                log.add("label-without-image", f"{labels}/{file.name}")


def _set_objects(found: Found, rows: Rows) -> None:
    count = len(rows.owners)
    boxes = np.array(rows.boxes, np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    no = np.zeros(count, bool)
    found.owners, found.category_ids = np.array(rows.owners, np.int64), np.array(rows.classes, np.int64)
    found.objects = ObjectColumns(boxes, np.zeros(count, np.int64), no, no, areas, np.arange(1, count + 1))
    found.where = lambda row: rows.where[row]
