"""COCO JSON and LVIS v1 JSON.

Programs write ids and flags as text (``"category_id": "1"``, ``"iscrowd": "0"``), leave out ``bbox`` where there is a
polygon, and give annotation ids that are no numbers; :mod:`poise.data.values` decides what they mean.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.assemble import RawSplit, assemble
from poise.data.coco_json import Annotations, parse, parse_bytes
from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import require_inside
from poise.data.folders import FileTree
from poise.data.image_paths import locate
from poise.data.image_set import Category, ImageSet, ObjectColumns
from poise.data.units import Written
from poise.data.values import integer, integral


def read(name: str, tree: FileTree, file: Path, folders: Sequence[Path], log: FaultLog) -> ImageSet:
    """One split.

    Args:
        name: of the split.
        tree: the files of the data set; nothing outside its root is read.
        file: the JSON.
        folders: where its images could be, the likeliest first.
        log: collects the faults.
    """
    content, annotations = parse(require_inside(tree.root, file))
    return _assemble(name, tree, content, annotations, file.relative_to(tree.root).as_posix(), folders, log)


def read_dictionary(name: str, tree: FileTree, content: object, source: str, *, log: FaultLog) -> ImageSet:
    """One split from a COCO dictionary that a plug-in read, with the checks of COCO files.

    Args:
        name: of the split.
        tree: the files of the data set; image files are named from its root.
        content: ``images``, ``annotations`` and ``categories``.
        source: what the dictionary was read from, for messages.
        log: collects the faults.
    """
    try:
        text = json.dumps(content).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{source}: is no COCO dictionary of numbers, strings, lists and dictionaries ({error})"
        ) from error
    plain, annotations = parse_bytes(text, source)
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
    _add_objects(annotations, found, log)
    return assemble(name, tree.root, "lvis" if lvis else "coco", found, log=log)


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


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _add_images(records: list[Any], found: RawSplit, log: FaultLog) -> bool:
    """Append the images; whether they carry LVIS's lists."""
    if _add_plain_images(records, found):
        return False
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


def _add_plain_images(records: list[Any], found: RawSplit) -> bool:
    """Append all images at once if each has an integer id, a file name, a size in integers and no list of LVIS."""
    try:
        ids, files = [record["id"] for record in records], [record["file_name"] for record in records]
        widths, heights = [record["width"] for record in records], [record["height"] for record in records]
        if set(map(type, chain(ids, widths, heights))) != {int} or set(map(type, files)) != {str} or not all(files):
            return False
        if not _is_id(min(ids)) or not _is_id(max(ids)) or any("neg_category_ids" in record for record in records):
            return False
    except (KeyError, TypeError):
        return False
    found.ids, found.files = ids, files
    found.widths, found.heights = [_side(width) for width in widths], [_side(height) for height in heights]
    return True


def _file_name(record: dict[str, Any]) -> str:
    """``file_name``; LVIS v1 has only ``coco_url``, whose last two parts are folder and file."""
    name = record.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = record.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""


def _side(value: object) -> int:
    whole = integral(value)
    return whole if isinstance(whole, int) and 0 < whole < 2**31 else 0


def _integers(value: object) -> list[int]:
    return [number for number in value if _is_id(number)] if isinstance(value, list) else []


def _add_objects(annotations: Annotations, found: RawSplit, log: FaultLog) -> None:
    for where, why in annotations.malformed:
        log.add("object-malformed", f"{found.source}: {where}", why)
    owners = _owners(annotations, found.ids)
    ids = np.array(annotations.ids, np.int64)
    for row in np.flatnonzero(owners < 0):
        where = f"{found.source}: annotation {ids[row]}"
        log.add("annotation-image-unknown", where, f"image_id {annotations.image_id(int(row))}")
    areas = np.array(annotations.areas)
    if len(areas) and not (areas > 0).any() and np.isfinite(areas).any():
        log.add("areas-not-positive", found.source, f"{len(areas)} annotations, none with an area above 0")
        annotations.areas = array("d", np.full(len(areas), np.nan))
    known = np.flatnonzero(owners >= 0)
    found.owners, found.category_ids = owners[known], np.array(annotations.category_ids, np.int64)[known]
    found.objects = _columns(annotations, ids)
    if len(known) < len(owners):
        found.objects = found.objects.take(known)
    found.written = Written(np.array(annotations.boxes, np.float64).reshape(-1, 4)[known])
    if annotations.from_polygons:
        found.read_as.append(f"{annotations.from_polygons} boxes taken from polygons")
    found.where = lambda row: (
        f"{found.source}: annotation {found.objects.annotation_ids[row]} of {found.files[found.owners[row]]}"
    )


def _owners(annotations: Annotations, ids: list[int | str]) -> np.ndarray:
    """Position of the first image with the id that each annotation names, -1 where there is none."""
    wanted, others = np.array(annotations.image_ids, np.int64), dict(annotations.other_image_ids)
    result = np.full(len(wanted), -1)
    if set(map(type, ids)) == {int}:
        known = np.array(ids, np.int64)
        order = np.argsort(known, kind="stable")
        found = np.searchsorted(known[order], wanted).clip(max=len(ids) - 1)
        result = np.where(known[order[found]] == wanted, order[found], -1)
    else:
        others = dict(enumerate(wanted.tolist())) | others
    index = {image_id: position for position, image_id in reversed(list(enumerate(ids)))} if others else {}
    as_text = {str(image_id): position for image_id, position in index.items()}  # 10 in one list, "10" in the other
    for row, own in others.items():
        result[row] = index.get(own, as_text.get(str(own), -1))
    return result


def _columns(annotations: Annotations, ids: np.ndarray) -> ObjectColumns:
    boxes = np.array(annotations.boxes, np.float64).reshape(-1, 4)
    areas, flags = np.array(annotations.areas), np.array(annotations.flags, np.int8)
    with np.errstate(invalid="ignore", over="ignore"):
        areas = np.where(np.isfinite(areas.astype(np.float32)), areas, boxes[:, 2] * boxes[:, 3])
        boxes[:, 2:] += boxes[:, :2]
    return ObjectColumns(boxes, np.zeros(len(ids), np.int64), (flags & 1) > 0, (flags & 2) > 0, areas, ids)
