"""COCO JSON and LVIS v1 JSON: parsed in one pass that keeps no masks, so that memory stays near the file's size."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.assemble import Found, assemble
from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import FileIndex, require_inside, size_of_file
from poise.data.image_set import Category, ImageSet, ObjectColumns

LARGEST_FILE = 8 << 30  # bytes; Objects365, the largest public set in this format, has 5 GB
PROBES = 200  # images looked for in each folder that could hold them


@dataclass
class Annotations:
    """Columns of the annotations, filled while the parser runs; each dictionary is freed as soon as it is read."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    image_ids: list[int | str] = field(default_factory=list)
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))  # x, y, width, height
    areas: array[float] = field(default_factory=lambda: array("d"))  # NaN where not said
    flags: array[int] = field(default_factory=lambda: array("b"))  # 1 crowd + 2 ignore
    malformed: list[str] = field(default_factory=list)

    def take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The parser's hook: swallow annotations and masks, pass on everything else."""
        if "image_id" not in record or ("bbox" not in record and "category_id" not in record):
            return None if "counts" in record and "size" in record else record
        why = self._add(record)
        if why:
            self.malformed.append(f"annotation {str(record.get('id', 'without id'))[:40]}|{why}")
        return None

    def _add(self, record: dict[str, Any]) -> str:
        """Append a row, or say why it cannot be one."""
        image_id, box = integral(record["image_id"]), record.get("bbox")
        if not isinstance(image_id, (int, str)):
            return "image_id is neither an integer nor a string"
        if not isinstance(box, list) or len(box) != 4:
            return "bbox is not a list of 4 numbers"
        try:
            numbers = array("d", box)
            category, own = (
                array("q", [integral(record.get("category_id"))]),
                array("q", [integral(record.get("id", -1))]),
            )
            area = float(record["area"]) if record.get("area") is not None else float("nan")
        except (TypeError, ValueError, OverflowError):
            return "bbox, category_id, id or area is not a usable number"
        self.boxes += numbers
        self.category_ids += category
        self.ids += own
        self.areas.append(area)
        self.image_ids.append(image_id)
        self.flags.append(bool(record.get("iscrowd")) + 2 * bool(record.get("ignore")))
        return ""


def integral(value: Any) -> Any:
    """Integers that were written as floats (1.0) as integers."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def read(name: str, root: Path, file: Path, folders: Sequence[Path], log: FaultLog) -> ImageSet:
    """One split.

    Args:
        name: of the split.
        root: of the data set; nothing outside it is read.
        file: the JSON.
        folders: where its images could be, the likeliest first.
        log: takes up the faults.
    """
    annotations = Annotations()
    content = parse(require_inside(root, file), annotations)
    found = Found(source=file.relative_to(root).as_posix())
    found.categories = _categories(content["categories"], found.source, log)
    lvis = _add_images(content["images"], found, log)
    lvis = lvis or any(category.frequency for category in found.categories)
    found.files = _locate(found.files, root, folders)
    _add_objects(content["annotations"], annotations, found, log)
    return assemble(name, root, "lvis" if lvis else "coco", found, log)


def parse(file: Path, annotations: Annotations) -> dict[str, Any]:
    """The dictionary of a COCO file, its annotations moved into ``annotations`` (None stands in their place)."""
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
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise DataError(f"{file}: is not COCO JSON: it needs the lists {', '.join(lists)}")
    return content


def _categories(records: list[Any], source: str, log: FaultLog) -> list[Category]:
    result = []
    for position, record in enumerate(records):
        number: Any = integral(record.get("id")) if isinstance(record, dict) else None
        if not _is_id(number) or not isinstance(record.get("name"), str):
            log.add("category-malformed", f"{source}: category at position {position}", repr(record)[:80])
            continue
        optional = [record.get(key) for key in ("frequency", "supercategory")]
        frequency, parent = (value if isinstance(value, str) else None for value in optional)
        result.append(Category(number, record["name"], frequency, parent))
    return result


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _add_images(records: list[Any], found: Found, log: FaultLog) -> bool:
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
        return name.replace("\\", "/")
    url = record.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""


def _side(value: Any) -> int:
    whole = integral(value)
    return whole if isinstance(whole, int) and 0 < whole < 2**31 else 0


def _integers(value: Any) -> list[int]:
    return [number for number in value if _is_id(number)] if isinstance(value, list) else []


def _locate(files: list[str], root: Path, folders: Sequence[Path]) -> list[str]:
    """Paths relative to ``root``, in the folder that holds most of a sample of the files."""
    index = FileIndex(root)
    prefixes = [folder.relative_to(root).as_posix() for folder in folders]
    prefixes = ["" if prefix == "." else prefix + "/" for prefix in prefixes]
    sample = files[:: max(1, len(files) // PROBES)]
    variants = [(prefix, short) for short in (False, True) for prefix in prefixes]

    def hits(variant: tuple[str, bool]) -> int:
        prefix, short = variant
        return sum(index.state(prefix + _shortened(file, short)) == "present" for file in sample)

    prefix, short = max(variants, key=hits)
    return [prefix + _shortened(file, short) for file in files]


def _shortened(file: str, short: bool) -> str:
    return file.rsplit("/", 1)[-1] if short else file


def _add_objects(rest: list[Any], annotations: Annotations, found: Found, log: FaultLog) -> None:
    for position, record in enumerate(rest):
        if record is not None:
            log.add("object-malformed", f"{found.source}: annotation at position {position}", repr(record)[:80])
    for text in annotations.malformed:
        where, why = text.rsplit("|", 1)
        log.add("object-malformed", f"{found.source}: {where}", why)
    index = {image_id: position for position, image_id in reversed(list(enumerate(found.ids)))}
    owners = np.fromiter((index.get(image_id, -1) for image_id in annotations.image_ids), np.int64)
    ids = np.array(annotations.ids, np.int64)
    for row in np.flatnonzero(owners < 0):
        where = f"{found.source}: annotation {ids[row]}"
        log.add("annotation-image-unknown", where, f"image_id {annotations.image_ids[row]}")
    known = np.flatnonzero(owners >= 0)
    found.owners, found.category_ids = owners[known], np.array(annotations.category_ids, np.int64)[known]
    found.objects = _columns(annotations, ids).take(known)
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
