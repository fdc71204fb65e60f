"""Pascal VOC: ``JPEGImages``, ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt``.

Boxes: VOC numbers pixels from 1, and ``xmax``, ``ymax`` are the last pixels *inside* the object; tools that write VOC
today (labelImg, Roboflow, CVAT) write corner coordinates from 0 instead, and no file says which of the two it is. The
four numbers are therefore taken as they stand, as corners in pixels; for files of the first kind that is an error of
half a pixel in the center and one pixel in size. ``difficult`` objects are kept and flagged as ``ignore``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from poise.data.assemble import Found, assemble
from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.files import is_inside, read_text, require_inside
from poise.data.image_set import Category, ImageSet, ObjectColumns

IMAGES, LABELS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".JPG", ".JPEG", ".PNG")


@dataclass
class Rows:
    """Objects of a split while its files are read."""

    owners: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # position in the file, from 1


def find(path: Path) -> Path | None:
    """The folder with ``JPEGImages`` and ``Annotations``: ``path`` or one folder below it."""
    candidates = [path, *(sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else [])]
    found = [folder for folder in candidates if (folder / IMAGES).is_dir() and (folder / LABELS).is_dir()]
    if len(found) > 1 and found[0] != path:
        names = ", ".join(folder.name for folder in found)
        raise DataError(f"{path}: holds several VOC data sets ({names}); give the path of one of them")
    return found[0] if found else None


def lists(folder: Path) -> dict[str, Path | None]:
    """Name and list file of each split; ``{"train": None}`` (every annotation file) where there is no list.

    Per-class lists (``cat_train.txt``) are no splits.
    """
    files = {file.stem: file for file in sorted((folder / LISTS).glob("*.txt"))}
    plain = {"valid": "val", "validation": "val"}
    splits = {plain.get(stem, stem): file for stem, file in files.items() if "_" not in stem}
    return dict(splits) if splits else {"train": None}


def read(name: str, root: Path, folder: Path, listed: Path | None, log: FaultLog) -> ImageSet:
    """One split. Classes are the names of *all* annotation files, in alphabetical order, with ids from 1."""
    prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    found = Found(source=prefix + (f"{LISTS}/{listed.name}" if listed else LABELS))
    trees, broken = _trees(root, folder)
    names = sorted({text for tree in trees.values() for text in _object_names(tree)})
    found.categories = [Category(i, text) for i, text in enumerate(names, 1)]
    rows = Rows()
    for stem in _stems(folder, listed):
        label = f"{prefix}{LABELS}/{stem}.xml"
        if stem in broken:
            log.add("label-unreadable", label, broken[stem])
        elif stem not in trees:
            log.add("label-missing", label, f"named in {found.source}")
        else:
            _add_image(found, rows, stem, trees[stem], (root, prefix), label, log)
    _log_orphans(folder, prefix, set(trees) | set(broken), log)
    _set_objects(found, rows, {text: i for i, text in enumerate(names, 1)}, prefix)
    return assemble(name, root, "voc", found, log)


def _stems(folder: Path, listed: Path | None) -> list[str]:
    if listed is None:
        return sorted(file.stem for file in (folder / LABELS).glob("*.xml"))
    lines = (line.split() for line in read_text(require_inside(folder, listed)).splitlines())
    return [words[0] for words in lines if words]


def _trees(root: Path, folder: Path) -> tuple[dict[str, Element], dict[str, str]]:
    """Parsed annotation files by stem, and why others cannot be parsed."""
    trees: dict[str, Element] = {}
    broken: dict[str, str] = {}
    for file in sorted((folder / LABELS).rglob("*.xml")):
        stem = file.relative_to(folder / LABELS).with_suffix("").as_posix()
        try:
            if not is_inside(root, file):
                raise DataError("leads out of the data folder")
            trees[stem] = parse(read_text(file))
        except DataError as error:
            broken[stem] = str(error)
    return trees, broken


def parse(text: str) -> Element:
    """Root element of an annotation; ``DataError`` for broken XML and for any DOCTYPE (no entities are expanded)."""
    try:
        # bytes, because ElementTree refuses a str with an encoding declaration of another encoding
        tree: Element = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise DataError(f"is not valid XML ({error}); write it again") from error
    except DefusedXmlException as error:
        raise DataError("declares a DOCTYPE or entities, which are refused; remove the declaration") from error
    except (ValueError, RecursionError, LookupError) as error:
        raise DataError(f"is not valid XML ({error}); write it again") from error
    if tree.tag != "annotation":
        raise DataError(f"its root element is <{tree.tag[:40]}>, not <annotation>")
    return tree


def _object_names(tree: Element) -> list[str]:
    return [name for node in tree.findall("object") if (name := (node.findtext("name") or "").strip())]


def _add_image(
    found: Found, rows: Rows, stem: str, tree: Element, place: tuple[Path, str], label: str, log: FaultLog
) -> None:
    width, height = (_side(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    found.add_image(stem, _image_file(*place, stem, tree), width, height)
    for number, node in enumerate(tree.findall("object"), 1):
        box = [_number(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        name = (node.findtext("name") or "").strip()
        if not name or None in box:
            log.add("object-malformed", f"{label} object {number}", "no name" if not name else "no complete bndbox")
            continue
        rows.owners.append(len(found.ids) - 1)
        rows.names.append(name)
        rows.boxes.append([value for value in box if value is not None])
        rows.difficult.append((node.findtext("difficult") or "0").strip() not in ("", "0"))
        rows.numbers.append(number)


def _image_file(root: Path, prefix: str, stem: str, tree: Element) -> str:
    """``JPEGImages/<stem>`` with the suffix that exists; else the annotation's own ``filename``."""
    base = f"{prefix}{IMAGES}/{stem}"
    named = (tree.findtext("filename") or "").strip()
    candidates = [base + suffix for suffix in _SUFFIXES]
    if named and "/" not in named and "\\" not in named:
        same_stem = Path(named).stem == Path(stem).name
        candidates.insert(0 if same_stem else len(candidates), f"{base.rsplit('/', 1)[0]}/{named}")
    return next((file for file in candidates if os.path.exists(root / file)), candidates[0])


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _side(text: str | None) -> int:
    value = _number(text)
    return int(value) if value is not None and 0 < value < 2**31 else 0


def _log_orphans(folder: Path, prefix: str, labeled: set[str], log: FaultLog) -> None:
    """Annotation files that no split lists and no image stands beside (listed ones are images that are missing)."""
    images = folder / IMAGES
    stems = {file.relative_to(images).with_suffix("").as_posix() for file in images.rglob("*")}
    listed = {stem for file in lists(folder).values() for stem in _stems(folder, file)}
    for stem in sorted(labeled - listed - stems):
        log.add("label-without-image", f"{prefix}{LABELS}/{stem}.xml")


def _set_objects(found: Found, rows: Rows, ids: dict[str, int], prefix: str) -> None:
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
    found.where = lambda row: f"{prefix}{LABELS}/{found.ids[rows.owners[row]]}.xml object {rows.numbers[row]}"
