"""COCO JSON and LVIS v1 JSON: parsed in one pass that keeps no masks, so that memory stays near the file's size.

Programs write ids and flags as text (``"category_id": "1"``, ``"iscrowd": "0"``), leave out ``bbox`` where there is a
polygon, and give annotation ids that are no numbers; :mod:`poise.data.values` decides what they mean.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.assemble import RawSplit, assemble
from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import require_inside, size_of_file
from poise.data.folders import FileTree
from poise.data.image_paths import locate
from poise.data.image_set import Category, ImageSet, ObjectColumns
from poise.data.units import Written
from poise.data.values import flag, integer, integral

LARGEST_FILE = 8 << 30  # bytes; Objects365, the largest public set in this format, has 5 GB


@dataclass
class Annotations:
    """Columns of the annotations, filled while the parser runs; each dictionary is freed as soon as it is read."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    image_ids: list[int | str] = field(default_factory=list)
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))  # x, y, width, height
    areas: array[float] = field(default_factory=lambda: array("d"))  # NaN: not stated
    flags: array[int] = field(default_factory=lambda: array("b"))  # 1 crowd + 2 ignore
    malformed: list[tuple[str, str]] = field(default_factory=list)  # which annotation, and why
    without_id: dict[int, str] = field(default_factory=dict)  # rows whose id is no integer, and what stands there
    from_polygons: int = 0  # boxes that were taken from polygons

    def take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Object hook of the parser: take out annotations and masks, return everything else."""
        if "image_id" not in record or ("bbox" not in record and "category_id" not in record):
            return None if "counts" in record and "size" in record else record
        why = self._add(record)
        if why:
            self.malformed.append((f"annotation {str(record.get('id', 'without id'))[:40]}", why))
        return None

    def _add(self, record: dict[str, Any]) -> str:
        """Append a row, or return why it cannot be one."""
        image_id, own, box = integral(record["image_id"]), integer(record.get("id")), record.get("bbox")
        if not isinstance(image_id, (int, str)):
            return "image_id is neither an integer nor a string"
        polygons = None if box else around_polygons(record.get("segmentation"))
        box = polygons or box
        if not box:
            return "has neither a bbox nor a polygon to take it from (masks in run lengths are not read)"
        if not isinstance(box, list) or len(box) != 4:
            return "bbox is not a list of 4 numbers"
        crowd, ignore = flag(record.get("iscrowd")), flag(record.get("ignore"))
        if crowd is None or ignore is None:
            name = "iscrowd" if crowd is None else "ignore"
            return f"{name} is {str(record[name])[:40]!r}, neither 0 nor 1"
        numbered = isinstance(own, int) and not isinstance(own, bool)
        try:
            numbers = array("d", box)
            category = array("q", [integer(record.get("category_id"))])
            ids = array("q", [own if numbered else -1])
            area = float(record["area"]) if record.get("area") is not None else float("nan")
        except (TypeError, ValueError, OverflowError):
            return "bbox, category_id, id or area is not a usable number"
        if not numbered:
            self.without_id[len(self.ids)] = str(own)[:40]
        self.boxes += numbers
        self.category_ids += category
        self.ids += ids
        self.areas.append(area)
        self.image_ids.append(image_id)
        self.flags.append(crowd + 2 * ignore)
        self.from_polygons += polygons is not None
        return ""

    def number(self, log: FaultLog, source: str) -> None:
        """Give annotations without an integer id the numbers after the greatest one."""
        if not self.without_id:
            return
        following = max(max(self.ids), 0) + 1
        row, stated = next(iter(self.without_id.items()))
        where = f"{source}: {len(self.without_id)} annotations, the first with id {stated}"
        log.add("annotation-id-not-integer", where, f"numbered from {following}")
        for offset, row in enumerate(self.without_id):
            self.ids[row] = following + offset


def around_polygons(segmentation: Any) -> list[float] | None:
    """The box (x, y, width, height) around polygons; None where there are none."""
    parts = segmentation if isinstance(segmentation, list) else []
    if parts and not isinstance(parts[0], list):
        parts = [parts]  # one polygon without the list around it
    numbers = [value for part in parts if isinstance(part, list) and len(part) >= 6 for value in part]
    pairs = all(isinstance(part, list) and len(part) % 2 == 0 for part in parts)
    if not numbers or not pairs or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def read(name: str, tree: FileTree, file: Path, folders: Sequence[Path], log: FaultLog) -> ImageSet:
    """One split.

    Args:
        name: of the split.
        tree: the files of the data set; nothing outside its root is read.
        file: the JSON.
        folders: where its images could be, the likeliest first.
        log: collects the faults.
    """
    annotations = Annotations()
    content = parse(require_inside(tree.root, file), annotations)
    return _assemble(name, tree, content, annotations, file.relative_to(tree.root).as_posix(), folders, log)


def read_dictionary(name: str, tree: FileTree, content: Any, source: str, log: FaultLog) -> ImageSet:
    """One split from a COCO dictionary that a plug-in read, with the checks of COCO files.

    Args:
        name: of the split.
        tree: the files of the data set; image files are named from its root.
        content: ``images``, ``annotations`` and ``categories``.
        source: what the dictionary was read from, for messages.
        log: collects the faults.
    """
    annotations = Annotations()
    try:
        plain = json.loads(json.dumps(content), object_hook=annotations.take)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{source}: is no COCO dictionary of numbers, strings, lists and dictionaries ({error})"
        ) from error
    _require_lists(plain, source)
    return _assemble(name, tree, plain, annotations, source, [tree.root], log)


def _assemble(
    name: str,
    tree: FileTree,
    content: dict[str, Any],
    annotations: Annotations,
    source: str,
    folders: Sequence[Path],
    log: FaultLog,
) -> ImageSet:
    found = RawSplit(source=source)
    found.categories = _categories(content["categories"], found.source, log)
    lvis = _add_images(content["images"], found, log)
    lvis = lvis or any(category.frequency for category in found.categories)
    stated, found.files = found.files, locate(found.files, tree, folders)
    found.stated = dict(zip(found.files, stated, strict=True))
    annotations.number(log, found.source)
    _add_objects(content["annotations"], annotations, found, log)
    return assemble(name, tree.root, "lvis" if lvis else "coco", found, log)


def parse(file: Path, annotations: Annotations) -> dict[str, Any]:
    """The dictionary of a COCO file, its annotations moved into ``annotations`` (replaced by None)."""
    try:
        size = size_of_file(file)
        if size > LARGEST_FILE:
            raise DataError(f"{file}: {size} bytes are more than the limit of {LARGEST_FILE}; split the file")
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_hook=annotations.take)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); check the file and its rights") from error
    except RecursionError as error:
        raise DataError(f"{file}: is nested too deeply for COCO JSON; write it again") from error
    except MemoryError as error:
        raise DataError(f"{file}: does not fit into memory; split the file") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: is not valid JSON ({error}); write or download it again") from error
    _require_lists(content, str(file))
    return content


def _require_lists(content: Any, source: str) -> None:
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise DataError(f"{source}: is not COCO JSON: it needs the lists {', '.join(lists)}")


def _categories(records: list[Any], source: str, log: FaultLog) -> list[Category]:
    result = []
    for position, record in enumerate(records):
        number: Any = integer(record.get("id")) if isinstance(record, dict) else None
        if not _is_id(number) or not isinstance(record.get("name"), str):
            why = "its id is no integer: " if isinstance(record, dict) and record.get("id") is not None else ""
            log.add("category-malformed", f"{source}: category at position {position}", why + repr(record)[:80])
            continue
        optional = [record.get(key) for key in ("frequency", "supercategory")]
        frequency, parent = (value if isinstance(value, str) else None for value in optional)
        result.append(Category(number, record["name"], frequency, parent))
    return result


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _add_images(records: list[Any], found: RawSplit, log: FaultLog) -> bool:
    """Append the images; whether they carry LVIS's lists."""
    negative, not_exhaustive, lvis = [], [], False
    for position, record in enumerate(records):
        image_id: Any = integral(record.get("id")) if isinstance(record, dict) else None
        file = _file_name(record) if isinstance(record, dict) else ""
        if not (_is_id(image_id) or isinstance(image_id, str)) or not file:
            log.add("image-malformed", f"{found.source}: image at position {position}", repr(record)[:80])
            continue
        found.add_image(image_id, file, _side(record.get("width")), _side(record.get("height")))
        lvis = lvis or "neg_category_ids" in record
        negative.append(_integers(record.get("neg_category_ids")))
        not_exhaustive.append(_integers(record.get("not_exhaustive_category_ids")))
    if lvis:
        found.negative, found.not_exhaustive = negative, not_exhaustive
    return lvis


def _file_name(record: dict[str, Any]) -> str:
    """``file_name``; LVIS v1 has only ``coco_url``, whose last two parts are folder and file."""
    name = record.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = record.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""


def _side(value: Any) -> int:
    whole = integral(value)
    return whole if isinstance(whole, int) and 0 < whole < 2**31 else 0


def _integers(value: Any) -> list[int]:
    return [number for number in value if _is_id(number)] if isinstance(value, list) else []


def _add_objects(rest: list[Any], annotations: Annotations, found: RawSplit, log: FaultLog) -> None:
    for position, record in enumerate(rest):
        if record is not None:
            log.add("object-malformed", f"{found.source}: annotation at position {position}", repr(record)[:80])
    for where, why in annotations.malformed:
        log.add("object-malformed", f"{found.source}: {where}", why)
    index = {image_id: position for position, image_id in reversed(list(enumerate(found.ids)))}
    as_text = {str(image_id): position for image_id, position in index.items()}  # 10 in one list, "10" in the other
    positions = (index.get(image_id, as_text.get(str(image_id), -1)) for image_id in annotations.image_ids)
    owners = np.fromiter(positions, np.int64)
    ids = np.array(annotations.ids, np.int64)
    for row in np.flatnonzero(owners < 0):
        where = f"{found.source}: annotation {ids[row]}"
        log.add("annotation-image-unknown", where, f"image_id {annotations.image_ids[row]}")
    areas = np.array(annotations.areas)
    if len(areas) and not (areas > 0).any() and np.isfinite(areas).any():
        log.add("areas-not-positive", found.source, f"{len(areas)} annotations, none with an area above 0")
        annotations.areas = array("d", np.full(len(areas), np.nan))
    known = np.flatnonzero(owners >= 0)
    found.owners, found.category_ids = owners[known], np.array(annotations.category_ids, np.int64)[known]
    found.objects = _columns(annotations, ids).take(known)
    found.written = Written(np.array(annotations.boxes, np.float64).reshape(-1, 4)[known])
    if annotations.from_polygons:
        found.read_as.append(f"{annotations.from_polygons} boxes taken from polygons")
    found.where = lambda row: (
        f"{found.source}: annotation {found.objects.annotation_ids[row]} of {found.files[found.owners[row]]}"
    )


def _columns(annotations: Annotations, ids: np.ndarray) -> ObjectColumns:
    boxes = np.array(annotations.boxes, np.float64).reshape(-1, 4)
    areas, flags = np.array(annotations.areas), np.array(annotations.flags, np.int8)
    with np.errstate(invalid="ignore", over="ignore"):
        areas = np.where(np.isfinite(areas.astype(np.float32)), areas, boxes[:, 2] * boxes[:, 3])
        boxes[:, 2:] += boxes[:, :2]
    return ObjectColumns(boxes, np.zeros(len(ids), np.int64), (flags & 1) > 0, (flags & 2) > 0, areas, ids)
