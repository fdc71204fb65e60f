"""Parsing of COCO JSON: columns of the annotations, and everything else as it stands in the file."""

from __future__ import annotations

import json
import math
import re
from array import array
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import size_of_file
from poise.data.values import flag, integer, integral

LARGEST_FILE = 8 << 30  # bytes; Objects365, the largest public set in this format, has 5 GB
CHUNK = 64  # annotations that are taken at once; more than 200 and the garbage collector runs between them
BLOCK = 1 << 24  # bytes that are searched for polygons at once
_NUMBER = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
_PART = rb"\[" + _NUMBER + rb"(?:, ?" + _NUMBER + rb")*\]"
POLYGONS = re.compile(
    rb'"segmentation": ?\[' + _PART + rb"(?:, ?" + _PART + rb")*\]"
)  # valid JSON, never inside a text
LEFT_OUT = b'"segmentation":true'  # what stands for polygons that are not parsed


class PolygonsNeeded(Exception):
    """An annotation has no box, and its polygons were not parsed."""


@dataclass
class Annotations:
    """Columns of the annotations, filled while the parser runs; each dictionary is freed soon after it is read."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    image_ids: list[int | str] = field(default_factory=list)
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))  # x, y, width, height
    areas: array[float] = field(default_factory=lambda: array("d"))  # NaN: not stated
    flags: array[int] = field(default_factory=lambda: array("b"))  # 1 crowd + 2 ignore
    malformed: list[tuple[str, str]] = field(default_factory=list)  # which annotation, and why
    pending: list[dict[str, Any]] = field(default_factory=list)  # the last ones, not in the columns yet
    without_id: dict[int, str] = field(default_factory=dict)  # rows whose id is no integer, and what stands there
    from_polygons: int = 0  # boxes that were taken from polygons

    polygons_left_out: bool = False  # ``LEFT_OUT`` stands for polygons

    def take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Object hook of the parser: take out annotations and masks, return everything else."""
        if "image_id" not in record or ("bbox" not in record and "category_id" not in record):
            return None if "counts" in record and "size" in record else record
        self.pending.append(record)
        if len(self.pending) == CHUNK:
            self.take_pending()
        return None

    def take_pending(self) -> None:
        """Append rows of the last records: all at once if they are as COCO's format says, else one by one."""
        if not self._add_plain():
            for record in self.pending:
                if why := self._add(record):
                    self.malformed.append((f"annotation {str(record.get('id', 'without id'))[:40]}", why))
        self.pending.clear()

    def _add_plain(self) -> bool:
        """Append all pending records if each has integers as ids, a list of four numbers and a flag of 0 or 1."""
        rows = self.pending
        try:
            keys = [[row[key] for row in rows] for key in ("image_id", "id", "category_id")]
            boxes, areas = [row["bbox"] for row in rows], [row["area"] for row in rows]
            flags = [row.get("iscrowd", 0) for row in rows]
            types = set(map(type, chain.from_iterable(keys))), set(map(type, areas)), set(map(type, boxes))
            if types[0] != {int} or not types[1] <= {int, float} or types[2] != {list}:
                return False
            if set(map(len, boxes)) != {4} or not set(flags) <= {0, 1} or any("ignore" in row for row in rows):
                return False
            columns = array("q", keys[1]), array("q", keys[2]), array("b", flags)
            numbers, sizes = array("d", chain.from_iterable(boxes)), array("d", areas)
        except (KeyError, TypeError, OverflowError):
            return False
        self.image_ids += keys[0]
        self.ids += columns[0]
        self.category_ids += columns[1]
        self.flags += columns[2]
        self.boxes += numbers
        self.areas += sizes
        return True

    def _add(self, record: dict[str, Any]) -> str:
        """Append a row, or return why it cannot be one."""
        image_id, own, box = integral(record["image_id"]), integer(record.get("id")), record.get("bbox")
        if not isinstance(image_id, (int, str)):
            return "image_id is neither an integer nor a string"
        if not box and self.polygons_left_out and record.get("segmentation") is True:
            raise PolygonsNeeded
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


def around_polygons(segmentation: object) -> list[float] | None:
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


def parse(file: Path) -> tuple[dict[str, Any], Annotations]:
    """The dictionary of a COCO file, its annotations replaced by None, and the annotations.

    Polygons of a record with a box are not parsed: they are most of the numbers of a file, and nothing reads them.
    """
    try:
        size = size_of_file(file)
        if size > LARGEST_FILE:
            raise DataError(f"{file}: {size} bytes are more than the limit of {LARGEST_FILE}; split the file")
        content, annotations = _without_polygons(file) or parse_text(file.read_text(encoding="utf-8-sig"))
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
    require_lists(content, str(file))
    return content, annotations


def _without_polygons(file: Path) -> tuple[dict[str, Any], Annotations] | None:
    """The same without polygons; None where one of them is needed, or the file is no valid JSON."""
    with file.open("rb") as content:  # polygons across two blocks stay
        parts = [POLYGONS.sub(LEFT_OUT, block) for block in iter(lambda: content.read(BLOCK), b"")]
    text = b"".join(parts)
    parts.clear()
    try:
        return parse_text(text.decode("utf-8-sig"), polygons_left_out=True)
    except (PolygonsNeeded, ValueError):  # parsed again: a message names the position in the whole file
        return None


def parse_text(text: str, polygons_left_out: bool = False) -> tuple[Any, Annotations]:
    """What a JSON text holds, its annotations replaced by None, and the annotations."""
    annotations = Annotations(polygons_left_out=polygons_left_out)
    content = json.loads(text, object_hook=annotations.take)
    annotations.take_pending()
    return content, annotations


def require_lists(content: object, source: str) -> None:
    """``DataError`` for anything but a dictionary with the three lists of COCO."""
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        raise DataError(f"{source}: is not COCO JSON: it needs the lists {', '.join(lists)}")
