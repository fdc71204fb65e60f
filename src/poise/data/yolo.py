"""YOLO: ``data.yaml`` with ``train``, ``val``, ``test`` and ``names``; folders of images and of label files.

:mod:`poise.data.yolo_labels` finds the label file of an image, :mod:`poise.data.yolo_lines` reads its lines. Sizes are
read from the image headers, EXIF orientation applied.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poise.data.assemble import RawSplit, assemble
from poise.data.errors import FOLLOW, BadImage, DataError
from poise.data.faults import FaultLog
from poise.data.files import MEBIBYTE, is_inside, read_text, require_inside
from poise.data.folders import SPLIT_WORDS, FileTree, files_below, plain_splits
from poise.data.image_set import Category, ImageSet, ObjectColumns
from poise.data.images import SUFFIXES, UNSUPPORTED, image_size
from poise.data.units import Written
from poise.data.yolo_labels import LabelFinder
from poise.data.yolo_lines import BOX, KEYPOINTS, Lines
from poise.storage import parse_yaml


@dataclass(frozen=True)
class Description:
    """The content of ``data.yaml``."""

    file: Path
    root: Path  # that the splits' paths are relative to
    categories: tuple[Category, ...]
    splits: dict[str, tuple[str, ...]]  # folders or list files of each
    num_keypoints: int | None = None  # the first number of kpt_shape


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
    return ("names" in content or "nc" in content) and bool(_splits(content))


def describe(file: Path) -> Description:
    """Read ``data.yaml``; ``DataError`` where it states no classes or splits."""
    content = _load(file)
    splits = _splits(content)
    if not splits:
        raise DataError(f"{file}: names no split; add train: and val: with folders of images")
    root, categories = _base(file, content.get("path"), splits), _categories(file, content)
    return Description(file, root, categories, splits, _num_keypoints(file, content.get("kpt_shape")))


def _load(file: Path) -> dict[str, object]:
    """The content with every value as the text that stands there, so that a class ``no`` stays ``no``."""
    text = read_text(require_inside(file.parent, file), MEBIBYTE)
    try:
        content = parse_yaml(text, as_text=True)
    except ValueError as error:
        raise DataError(f"{file}: {error}; correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: is not a YOLO description; it needs names: and train:")
    return content


def _splits(content: dict[str, object]) -> dict[str, tuple[str, ...]]:
    """Folders or list files of each split; keys may be capitalized (``Train``) or synonyms (``valid``)."""
    keys = [key for key in content if key.lower() in SPLIT_WORDS]
    splits = {}
    for key, name in zip(keys, plain_splits(keys), strict=True):
        value = content[key]
        parts = value if isinstance(value, list) else [value]
        if all(isinstance(part, str) and part not in ("", "null", "~") for part in parts) and parts:
            splits[name] = tuple(parts)
    return splits


def _num_keypoints(file: Path, stated: object) -> int | None:
    """K of ``kpt_shape: [K, 2]`` or ``[K, 3]``."""
    if stated is None:
        return None
    numbers = stated if isinstance(stated, list) else []
    if len(numbers) != 2 or not all(isinstance(n, str) and n.isdecimal() for n in numbers) or int(numbers[0]) < 1:
        raise DataError(f"{file}: kpt_shape: {stated} is not [number of keypoints, 2 or 3]; correct it")
    return int(numbers[0])


def _base(file: Path, stated: object, splits: dict[str, tuple[str, ...]]) -> Path:
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


def _categories(file: Path, content: dict[str, object]) -> tuple[Category, ...]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, list):
        names = {str(i): name for i, name in enumerate(names)}
    if names is None and isinstance(count, str) and count.isdecimal() and 0 < int(count) < 100_000:
        names = {str(i): str(i) for i in range(int(count))}
    if not isinstance(names, dict) or not names:
        raise DataError(f"{file}: has no names; add names: with the classes in order")
    for key, name in names.items():
        if not _is_integer(key) or not isinstance(name, str):
            raise DataError(
                f"{file}: names must be a list of names or a mapping of numbers to names, not {key}: {name}"
            )
    return tuple(Category(key, name) for key, name in sorted((int(key), name) for key, name in names.items()))


def _is_integer(text: object) -> bool:
    return isinstance(text, str) and text.removeprefix("-").isdecimal() and abs(int(text)) < 2**63


def read(name: str, root: Path, description: Description, tree: FileTree, log: FaultLog) -> ImageSet:
    """One split."""
    found = RawSplit(source=description.file.name, categories=list(description.categories))
    lines, labels = Lines(description.num_keypoints), LabelFinder(tree)
    images = list(
        dict.fromkeys(image for part in description.splits[name] for image in _images(description, root, part))
    )
    for image in images:
        _add_image(found, lines, labels, image, root, log)
    for label in labels.unused(images):
        log.add("label-without-image", label)
    if why := lines.unclear():
        log.add("label-unclear", f"split {name}", why)
    _set_objects(found, lines)
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(lines.kinds).items())
    found.read_as += [f"label lines: {counts}"] if counts else []
    found.read_as += [f"labels of {folder}: in {path}" for folder, path in labels.other_folders.items()]
    return assemble(name, root, "yolo", found, log=log)


def _split_path(description: Description, root: Path, part: str) -> Path:
    """Folder or list of a split; ``../train/images`` is taken from the root, as such files are often written."""
    part = part.replace("\\", "/")  # written on Windows
    candidates = [description.root / part, description.file.parent / part]
    inner = part
    while inner.startswith("../"):
        inner = inner[3:]
        candidates.append(description.root / inner)
    path = next((one for one in candidates if os.path.exists(one) and is_inside(root, one)), None)
    if path is None:
        raise DataError(
            f"{description.file}: {part} is neither a folder nor a list of images inside {root}; correct the path "
            f"(of links: {FOLLOW})"
        )
    return path


def _images(description: Description, root: Path, part: str) -> Iterator[str]:
    """Images of one folder or list, relative to the root."""
    path = _split_path(description, root, part)
    if path.is_dir():
        yield from (file.relative_to(root).as_posix() for file in files_below(path, SUFFIXES | UNSUPPORTED))
        return
    for line in read_text(path, 1024 * MEBIBYTE).splitlines():
        if text := line.strip():
            yield _listed(text, path.parent, root)


def _listed(text: str, folder: Path, root: Path) -> str:
    """A line of a list file: relative to the list's folder or to the root, without leading folders of elsewhere."""
    text = text.replace("\\", "/")  # written on Windows
    parts = [part for part in text.split("/") if part not in ("", ".")]
    candidates = [folder / text, root / text, *(root.joinpath(*parts[i:]) for i in range(1, len(parts)))]
    path = next((one for one in candidates if "\0" not in text and one.exists()), root / text)
    return Path(os.path.normpath(path)).relative_to(root).as_posix() if _is_below(path, root) else text


def _is_below(path: Path, root: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(root)


def _add_image(found: RawSplit, lines: Lines, labels: LabelFinder, image: str, root: Path, log: FaultLog) -> None:
    own = labels.find(image)
    if Path(image).suffix.lower() in UNSUPPORTED:
        if own:  # without a label it is no part of the data; the check reports the file
            log.add("image-unsupported", image, "convert it to PNG or JPEG")
        return
    try:
        size = image_size(root / image) if is_inside(root, root / image) else (0, 0)
    except BadImage as error:
        if error.kind != "image-missing":
            log.add(error.kind, image, error.why)
            return
        size = (0, 0)  # reported when the set is put together
    except ValueError:  # a NUL byte in the name
        size = (0, 0)
    if not own and (other := labels.elsewhere(image)):
        log.add("label-elsewhere", image, f"{other} has its name and is the label of no other image")
        return
    if len(own) > 1:
        log.add("label-duplicate", image, f"{own[0]} is read, not {', '.join(own[1:])}")
    try:
        text = _read_label(root, own[0]) if own else None
    except DataError as error:
        log.add("label-unreadable", own[0], str(error))
        return
    found.add_image(image.rsplit(".", 1)[0], image, *size)
    if text is None:
        log.add("image-without-label", image)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            lines.add(line, len(found.ids) - 1, size, f"{own[0]} line {number}", log=log)


def _read_label(root: Path, label: str) -> str:
    if not is_inside(root, root / label):
        raise DataError(f"leads out of the data folder ({FOLLOW})")
    return read_text(root / label)


def _set_objects(found: RawSplit, lines: Lines) -> None:
    count = len(lines.owners)
    boxes = np.array(lines.boxes, np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    no = np.zeros(count, bool)
    found.owners, found.category_ids = np.array(lines.owners, np.int64), np.array(lines.classes, np.int64)
    found.objects = ObjectColumns(boxes, np.zeros(count, np.int64), no, no, areas, np.arange(1, count + 1))
    found.where = lambda row: lines.where[row]
    alone = np.array([kind in (BOX, KEYPOINTS) for kind in lines.kinds], bool)
    found.written = Written(np.array(lines.written, np.float64).reshape(-1, 4), alone, normalized=True)
