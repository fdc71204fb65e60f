"""Pascal VOC: one XML file an image; :mod:`poise.data.voc_layouts` says where images and annotations lie.

Boxes: VOC numbers pixels from 1, and ``xmax``, ``ymax`` are the last pixels *inside* the object; tools that write VOC
today (LabelImg, Roboflow, CVAT) write corner coordinates from 0 instead, and no file says which of the two it is. The
four numbers are therefore taken as they stand, as corners in pixels; for files of the first kind that is an error of
half a pixel in the center and one pixel in size. ``difficult`` objects are kept and flagged as ``ignore``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

import numpy as np

from poise.data.assemble import RawSplit, assemble
from poise.data.faults import FaultLog
from poise.data.files import read_text, require_inside
from poise.data.image_set import Category, ImageSet, ObjectColumns
from poise.data.images import SUFFIXES
from poise.data.values import flag
from poise.data.voc_layouts import Labeled, Layout, Split


@dataclass
class VocObjects:
    """Objects of a split while its files are read."""

    owners: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


def read(name: str, layout: Layout, log: FaultLog) -> ImageSet:
    """One split. Classes are the names in *all* annotation files, in alphabetical order, with ids from 1."""
    split, rows = layout.splits[name], VocObjects()
    found = RawSplit(source=split.source)
    trees = [tree for tree in layout.trees.values() if not isinstance(tree, str)]
    names = sorted({text for tree in trees for text in _object_names(tree)})
    found.categories = [Category(i, text) for i, text in enumerate(names, 1)]
    for folder, stem in _annotations(layout, split):
        label = f"{folder.labels}/{stem}" if folder.labels else stem
        tree = layout.trees.get(label)
        if tree is None:
            log.add("label-missing", f"{label}.xml", f"named in {found.source}")
        elif isinstance(tree, str):
            log.add("label-unreadable", f"{label}.xml", tree)
        else:
            image = layout.image(folder, stem, (tree.findtext("filename") or "").strip())
            width, height = (_side(tree.findtext(f"size/{side}")) for side in ("width", "height"))
            found.add_image(stem if len(split.folders) == 1 else label, image, width, height)
            _add_objects(rows, len(found.ids) - 1, tree, f"{label}.xml", log)
    if split.listed is not None:
        _log_unlisted(layout, split, log)
    _set_objects(found, rows, {text: i for i, text in enumerate(names, 1)})
    return assemble(name, layout.root, "voc", found, log=log)


def _annotations(layout: Layout, split: Split) -> list[tuple[Labeled, str]]:
    """Folder and name without suffix of each annotation of a split, in order."""
    if split.listed is None:
        return [(folder, stem) for folder in split.folders for stem in layout.stems(folder)]
    folder = split.folders[0]
    return [(folder, stem) for stem in _listed(layout, split, set(layout.stems(folder)))]


def _listed(layout: Layout, split: Split, known: set[str]) -> list[str]:
    assert split.listed is not None
    lines = read_text(require_inside(layout.root, split.listed)).splitlines()
    return [_listed_stem(line.strip(), known) for line in lines if line.strip()]


def _listed_stem(line: str, known: set[str]) -> str:
    """The annotation that a line of a list names: alone, before VOC's flag -1, 0 or 1, or as the path of a file."""
    flagged = re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line)
    bare, suffix = os.path.splitext(line)
    without = [bare, bare.replace("\\", "/").rsplit("/", 1)[-1]] if suffix.lower() in SUFFIXES | {".xml"} else []
    candidates = [line, *([flagged[1]] if flagged else []), *without]
    return next((stem for stem in candidates if stem in known), candidates[min(1, len(candidates) - 1)])


def _object_names(tree: Element) -> list[str]:
    return [name for node in tree.findall("object") if (name := (node.findtext("name") or "").strip())]


def _add_objects(rows: VocObjects, owner: int, tree: Element, label: str, log: FaultLog) -> None:
    for number, node in enumerate(tree.findall("object"), 1):
        box = [_number(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        name = (node.findtext("name") or "").strip()
        difficult = flag(node.findtext("difficult"))
        if not name or None in box or difficult is None:
            why = "no name" if not name else "no complete bndbox" if None in box else ""
            why = why or f"difficult is {node.findtext('difficult')!r}, neither 0 nor 1"
            log.add("object-malformed", f"{label} object {number}", why)
            continue
        rows.owners.append(owner)
        rows.names.append(name)
        rows.boxes.append([value for value in box if value is not None])
        rows.difficult.append(difficult)
        rows.where.append(f"{label} object {number}")


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _side(text: str | None) -> int:
    value = _number(text)
    return int(value) if value is not None and 0 < value < 2**31 else 0


def _log_unlisted(layout: Layout, split: Split, log: FaultLog) -> None:
    """Annotation files that no split lists and that have no image (listed ones are images that are missing)."""
    folder = split.folders[0]
    known = set(layout.stems(folder))
    listed = {stem for other in layout.splits.values() if other.listed for stem in _listed(layout, other, known)}
    for stem in sorted(known - listed):
        if not (layout.root / layout.image(folder, stem, "")).exists():
            log.add("label-without-image", f"{folder.labels}/{stem}.xml")


def _set_objects(found: RawSplit, rows: VocObjects, ids: dict[str, int]) -> None:
    count = len(rows.owners)
    boxes = np.array(rows.boxes, np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found.owners = np.array(rows.owners, np.int64)
    found.category_ids = np.array([ids[name] for name in rows.names], np.int64)
    found.objects = ObjectColumns(
        boxes=boxes,
        labels=np.zeros(count, np.int64),
        crowd=np.zeros(count, bool),
        ignore=np.array(rows.difficult, bool),
        areas=areas,
        annotation_ids=np.arange(1, count + 1),
    )
    found.where = lambda row: rows.where[row]
