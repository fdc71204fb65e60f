"""Parsing of COCO JSON: columns of the annotations, and everything else as it stands in the file.

The file is split into its records, and the records are decoded into the fields that are read, some hundred at a time.
Polygons are checked to be valid JSON, but are decoded only for a record without a box.
"""

from __future__ import annotations

import codecs
import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import size_of_file
from poise.data.values import flag, integer, integral

LARGEST_FILE = 8 << 30  # bytes; Objects365, the largest public set in this format, has 5 GB
CHUNK = 256  # annotations that are decoded at once; with many more the garbage collector runs between them
BLOCK = 1 << 24  # bytes of which it is checked at once that they are UTF-8


class Row(msgspec.Struct, gc=False):
    """What is read of an annotation, as it stands in the file."""

    image_id: Any = UNSET
    category_id: Any = UNSET
    bbox: Any = UNSET
    id: Any = UNSET
    area: Any = UNSET
    iscrowd: Any = 0
    ignore: Any = 0
    segmentation: Raw | UnsetType = UNSET


class _Lists(msgspec.Struct, gc=False):
    annotations: list[Raw]
    images: Raw
    categories: Raw


def _is_annotation(row: Row) -> bool:
    return row.image_id is not UNSET and (row.bbox is not UNSET or row.category_id is not UNSET)


def _fields(row: Row) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(row).items() if value is not UNSET}


_lists, _rows = msgspec.json.Decoder(_Lists), msgspec.json.Decoder(list[Row])


@dataclass
class Annotations:
    """Columns of the annotations."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    image_ids: array[int] = field(default_factory=lambda: array("q"))  # -1 for the rows of ``other_image_ids``
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))  # x, y, width, height
    areas: array[float] = field(default_factory=lambda: array("d"))  # NaN: not stated
    flags: array[int] = field(default_factory=lambda: array("b"))  # 1 crowd + 2 ignore
    malformed: list[tuple[str, str]] = field(default_factory=list)  # which annotation, and why
    other_image_ids: dict[int, int | str] = field(default_factory=dict)  # rows whose image id is no integer of 64 bits
    without_id: dict[int, str] = field(default_factory=dict)  # rows whose id is no integer, and what stands there
    from_polygons: int = 0  # boxes that were taken from polygons

    def add_all(self, records: Sequence[Raw]) -> None:
        """Append a row of each record, a chunk at a time."""
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            try:
                rows = _rows.decode(b"[" + b",".join(chunk) + b"]")
            except msgspec.MsgspecError:  # a record is no dictionary, or holds what msgspec does not read
                rows = []
            if not rows or not self._add_plain(rows):
                for position, record in enumerate(chunk, start):
                    row = rows[position - start] if rows else Row()
                    self.add(position, _fields(row) if _is_annotation(row) else json.loads(bytes(record)))

    def _add_plain(self, rows: list[Row]) -> bool:
        """Append all rows if each has integers as ids, a list of four numbers and flags of 0 or 1."""
        images, ids, categories = [r.image_id for r in rows], [r.id for r in rows], [r.category_id for r in rows]
        boxes, areas = [r.bbox for r in rows], [r.area for r in rows]
        crowds, ignores = [r.iscrowd for r in rows], [r.ignore for r in rows]
        if set(map(type, chain(images, ids, categories, crowds, ignores))) != {int} or set(map(type, boxes)) != {list}:
            return False
        if not set(map(type, areas)) <= {int, float} or set(map(len, boxes)) != {4}:
            return False
        if not set(crowds) | set(ignores) <= {0, 1}:
            return False
        flags = [crowd + 2 * ignore for crowd, ignore in zip(crowds, ignores, strict=True)]
        try:
            columns = array("q", images), array("q", ids), array("q", categories), array("b", flags)
            numbers, sizes = array("d", chain.from_iterable(boxes)), array("d", areas)
        except (TypeError, OverflowError):
            return False
        self.image_ids += columns[0]
        self.ids += columns[1]
        self.category_ids += columns[2]
        self.flags += columns[3]
        self.boxes += numbers
        self.areas += sizes
        return True

    def add(self, position: int, record: object) -> None:
        """Append a row, or note at which position of the list of annotations stands none, and why."""
        if not isinstance(record, dict) or "image_id" not in record or not record.keys() & {"bbox", "category_id"}:
            self.malformed.append((f"annotation at position {position}", repr(record)[:80]))
        elif why := self._add(record):
            self.malformed.append((f"annotation {str(record.get('id', 'without id'))[:40]}", why))

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
        is_number = type(image_id) is int and -(2**63) <= image_id < 2**63
        if not is_number:
            self.other_image_ids[len(self.ids)] = image_id
        self.boxes += numbers
        self.category_ids += category
        self.ids += ids
        self.areas.append(area)
        self.image_ids.append(int(image_id) if is_number else -1)
        self.flags.append(crowd + 2 * ignore)
        self.from_polygons += polygons is not None
        return ""

    def image_id(self, row: int) -> int | str:
        """The id of a row's image as the annotation states it."""
        return self.other_image_ids.get(row, self.image_ids[row])

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


def around_polygons(segmentation: object) -> list[float] | None:
    """The box (x, y, width, height) around polygons; None where there are none."""
    if isinstance(segmentation, Raw):
        segmentation = json.loads(bytes(segmentation))
    parts = segmentation if isinstance(segmentation, list) else []
    if parts and not isinstance(parts[0], list):
        parts = [parts]  # one polygon without the list around it
    numbers = [value for part in parts if isinstance(part, list) and len(part) >= 6 for value in part]
    pairs = all(isinstance(part, list) and len(part) % 2 == 0 for part in parts)
    if not numbers or not pairs or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def parse(file: Path) -> tuple[dict[str, Any], Annotations]:
    """The lists ``images`` and ``categories`` of a COCO file, and the columns of its annotations."""
    try:
        size = size_of_file(file)
        if size > LARGEST_FILE:
            raise DataError(f"{file}: {size} bytes are more than the limit of {LARGEST_FILE}; split the file")
        return parse_bytes(file.read_bytes(), str(file))
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


def parse_bytes(text: bytes, source: str) -> tuple[dict[str, Any], Annotations]:
    """The same of a JSON text; ``source`` names it in messages."""
    annotations = Annotations()
    try:
        _require_utf8(text)
        lists = _lists.decode(text.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError):  # damaged, or with NaN, which JSON does not have, or not of COCO
        decoded = text.decode("utf-8-sig")
        del text  # as large as the file
        content = json.loads(decoded, object_hook=_without_mask)
        _require_lists(content, source)
        for position, record in enumerate(content.pop("annotations")):
            annotations.add(position, record)
        return content, annotations
    content = {"images": json.loads(bytes(lists.images)), "categories": json.loads(bytes(lists.categories))}
    _require_lists(content | {"annotations": []}, source)
    annotations.add_all(lists.annotations)
    return content, annotations


def _require_utf8(text: bytes) -> None:
    """``UnicodeDecodeError`` for anything else; without a copy of the whole text."""
    if not text.isascii():
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(text), BLOCK):
            decoder.decode(text[start : start + BLOCK], start + BLOCK >= len(text))


def _without_mask(record: dict[str, Any]) -> dict[str, Any]:
    """Object hook of the parser: free what nothing reads as soon as it is parsed."""
    if record.get("bbox"):
        record.pop("segmentation", None)
    return record


def _require_lists(content: object, source: str) -> None:
    """``DataError`` for anything but a dictionary with the three lists of COCO."""
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise DataError(f"{source}: is not COCO JSON: it needs the lists {', '.join(lists)}")
