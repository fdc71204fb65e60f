"""Make an :class:`ImageSet` of the records of any format: check each of them and leave the faulty ones out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from poise.data.columns import Ragged, Strings, ids_column
from poise.data.errors import BadImage
from poise.data.faults import FaultLog
from poise.data.files import FileIndex
from poise.data.image_set import Category, ImageColumns, ImageSet, ObjectColumns
from poise.data.images import UNSUPPORTED, image_size
from poise.data.units import Written, other_unit

OUTSIDE = 1.0  # pixels that a box may reach out of its image without a note


@dataclass
class RawSplit:
    """The records of one split as a reader found them, unchecked."""

    source: str  # the annotation file or folder, for messages
    categories: list[Category] = field(default_factory=list)
    ids: list[int | str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # relative to the root
    widths: list[int] = field(default_factory=list)  # 0: not stated
    heights: list[int] = field(default_factory=list)
    negative: list[list[int]] | None = None
    not_exhaustive: list[list[int]] | None = None
    owners: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (m,) position of each object's image
    category_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (m,)
    objects: ObjectColumns = field(default_factory=lambda: no_objects())  # labels are set here
    where: Callable[[int], str] = str  # names an object by its row
    stated: dict[str, str] = field(default_factory=dict)  # files as the annotations name them, where that differs
    written: Written | None = None  # the numbers of the boxes as they stand in the file
    read_as: list[str] = field(default_factory=list)  # how the files were read, for people

    def add_image(self, image_id: int | str, file: str, width: int, height: int) -> None:
        self.ids.append(image_id)
        self.files.append(file)
        self.widths.append(width)
        self.heights.append(height)


def no_objects() -> ObjectColumns:
    """Columns without rows."""
    none = np.zeros(0)
    return ObjectColumns(
        none.reshape(0, 4), none.astype(np.int64), none.astype(bool), none.astype(bool), none, none.astype(np.int64)
    )


def assemble(name: str, root: Path, kind: str, found: RawSplit, *, log: FaultLog) -> ImageSet:
    """Check everything that can be known without decoding images, and keep what is sound.

    Objects keep the order in which they stand in the file; images too.
    """
    categories = _categories(found, log)
    keep_image = _images(found, root, log)
    labels = _labels(found.category_ids, categories)
    keep = keep_image[found.owners] if len(found.owners) else np.zeros(0, bool)
    keep &= _sound_objects(found, labels, keep, log)
    position = np.cumsum(keep_image) - 1
    owners = position[found.owners[keep]]
    order = np.argsort(owners, kind="stable")
    objects = replace(found.objects, labels=labels).take(np.flatnonzero(keep)[order])
    counts = np.bincount(owners, minlength=int(keep_image.sum()))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    images = _image_columns(found).take(np.flatnonzero(keep_image))
    return ImageSet(
        name,
        root,
        kind,
        categories,
        images,
        objects,
        offsets,
        tuple(log.dropped),
        tuple(log.notes),
        read_as=tuple(found.read_as),
    )


def _image_columns(found: RawSplit) -> ImageColumns:
    return ImageColumns(
        ids_column(found.ids),
        Strings.of(found.files),
        np.array(found.widths, np.int32),
        np.array(found.heights, np.int32),
        Ragged.of(found.negative) if found.negative is not None else None,
        Ragged.of(found.not_exhaustive) if found.not_exhaustive is not None else None,
    )


def _categories(found: RawSplit, log: FaultLog) -> tuple[Category, ...]:
    """Sorted by id, without those whose id is taken."""
    by_id: dict[int, Category] = {}
    names: dict[str, int] = {}
    for category in found.categories:
        where = f"{found.source}: category {category.id} {category.name!r}"
        if category.id in by_id:
            log.add("category-id-duplicate", where, f"the id is taken by {by_id[category.id].name!r}")
            continue
        if category.name in names:
            log.add("category-name-duplicate", where, f"also the name of category {names[category.name]}")
        by_id[category.id] = category
        names.setdefault(category.name, category.id)
    return tuple(by_id[key] for key in sorted(by_id))


def _labels(category_ids: np.ndarray, categories: tuple[Category, ...]) -> np.ndarray:
    """Position of each category id, -1 where unknown."""
    known = np.array([category.id for category in categories], np.int64)
    if not len(known):
        return np.full(len(category_ids), -1)
    position = np.searchsorted(known, category_ids).clip(max=len(known) - 1)
    return np.where(known[position] == category_ids, position, -1)


def _images(found: RawSplit, root: Path, log: FaultLog) -> np.ndarray:
    """Mask of the images that can be used; fills in sizes that are not stated."""
    keep = np.ones(len(found.ids), bool)
    _drop_repeated_ids(found, keep, log)
    index = FileIndex(root)
    seen: dict[str, int] = {}
    for i, file in enumerate(found.files):
        if not keep[i]:
            continue
        state = index.state(file)
        if state != "present":
            kind = "image-missing" if state == "missing" else "image-outside-root"
            log.add(kind, file, _missing(found, file, index.near(file) if state == "missing" else ""))
            keep[i] = False
        elif file[file.rfind(".") :].lower() in UNSUPPORTED:
            log.add("image-unsupported", file, "convert it to PNG or JPEG")
            keep[i] = False
        elif found.widths[i] <= 0 or found.heights[i] <= 0:
            keep[i] = _fill_size(found, root, i, log)
        if keep[i] and seen.setdefault(file, i) != i:
            log.add("image-file-duplicate", file, f"image ids {found.ids[seen[file]]} and {found.ids[i]}")
    return keep


def _missing(found: RawSplit, file: str, near: str) -> str:
    """Where a missing image is named, and how, and what could be meant."""
    stated = found.stated.get(file, file)
    text = f"named in {found.source}" + (f" as {stated}" if stated.startswith("/") or not file.endswith(stated) else "")
    if "://" in stated:
        text += f"; nothing is downloaded: put {file.rsplit('/', 1)[-1]} into the data folder"
    return text + (f"; there is {near!r}" if near else "")


def _fill_size(found: RawSplit, root: Path, i: int, log: FaultLog) -> bool:
    try:
        found.widths[i], found.heights[i] = image_size(root / found.files[i])
    except BadImage as error:
        log.add(error.kind, found.files[i], error.why)
        return False
    log.add("image-size-missing", f"{found.source}: image {found.ids[i]}", f"read from {found.files[i]}")
    return True


def _drop_repeated_ids(found: RawSplit, keep: np.ndarray, log: FaultLog) -> None:
    if len(set(found.ids)) == len(found.ids):
        return
    positions: dict[int | str, list[int]] = defaultdict(list)
    for i, image_id in enumerate(found.ids):
        positions[image_id].append(i)
    for image_id, same in positions.items():
        ambiguous = len({found.files[i] for i in same}) > 1
        for i in same if ambiguous else same[1:]:
            log.add("image-id-duplicate", f"{found.source}: image {image_id}", found.files[i])
            keep[i] = False


def _sound_objects(found: RawSplit, labels: np.ndarray, considered: np.ndarray, log: FaultLog) -> np.ndarray:
    """Mask of the objects without fault, among those ``considered``; a faulty one is logged under its first fault."""
    objects = found.objects
    sound: np.ndarray = considered.copy()
    x1, y1, x2, y2 = objects.boxes.T
    width, height = (np.array(side, np.float64)[found.owners] for side in (found.widths, found.heights))

    def drop(kind: str, faulty: np.ndarray, detail: Callable[[int], str]) -> None:
        for row in np.flatnonzero(faulty & sound):
            log.add(kind, found.where(int(row)), detail(int(row)))
        sound[faulty] = False

    def box(row: int) -> str:
        return "x1, y1, x2, y2 = " + ", ".join(f"{value:g}" for value in objects.boxes[row])

    if why := other_unit(found.written, objects.boxes, np.stack((width, height), 1)):
        log.add("boxes-other-unit", found.source, why)
        sound[:] = False
    with np.errstate(invalid="ignore", over="ignore"):
        drop("category-unknown", labels < 0, lambda row: f"category {found.category_ids[row]}")
        stored: np.ndarray = objects.boxes.astype(np.float32)  # 1e300 is finite in the file, but not where it is used
        drop("box-nonfinite", ~np.isfinite(stored).all(1), box)
        drop("box-degenerate", (x2 <= x1) | (y2 <= y1), box)
        drop("box-outside", (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height), box)
        partly = (np.minimum(x1, y1) < -OUTSIDE) | (x2 > width + OUTSIDE) | (y2 > height + OUTSIDE)
        _note(found, log, "box-partly-outside", partly & sound)
        _note(found, log, "box-tiny", ((x2 - x1 < 1) | (y2 - y1 < 1)) & sound)
    _note(found, log, "box-duplicated", _repeated(found, labels, sound))
    _note_ids(found, log, sound)
    return sound


def _note(found: RawSplit, log: FaultLog, kind: str, rows: np.ndarray) -> None:
    for row in np.flatnonzero(rows):
        values = ", ".join(f"{value:g}" for value in found.objects.boxes[row])
        log.add(kind, found.where(int(row)), f"x1, y1, x2, y2 = {values}")


def _repeated(found: RawSplit, labels: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Mask of the objects that equal an earlier one in image, class and box."""
    columns = (*found.objects.boxes.T, labels, found.owners)
    result = np.zeros(len(labels), bool)
    rows = _of_equal_hash(columns)
    order = rows[np.lexsort([column[rows] for column in columns])]  # stable: the first in the file comes first
    order = order[sound[order]]
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    result[order[1:][same]] = True
    return result


def _of_equal_hash(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Rows whose hash is also that of another row, ascending; all rows that equal another one are among them."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        bits = (column.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
        total = (total ^ bits ^ (bits >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    order = np.argsort(total)
    equal = total[order[1:]] == total[order[:-1]]
    several = np.zeros(len(total), bool)
    several[order[1:][equal]] = True
    several[order[:-1][equal]] = True
    return np.flatnonzero(several)


def _note_ids(found: RawSplit, log: FaultLog, sound: np.ndarray) -> None:
    ids = found.objects.annotation_ids
    for row in np.flatnonzero((ids == 0) & sound):
        log.add("annotation-id-zero", found.where(int(row)))
    rows = np.flatnonzero(sound)
    _, first = np.unique(ids[rows], return_index=True)
    later = np.ones(len(rows), bool)
    later[first] = False
    for row in rows[later]:
        log.add("annotation-id-duplicate", found.where(int(row)), f"id {ids[row]}")
