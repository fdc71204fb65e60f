"""The annotations of a split as one file of columns (``train.annotations.npz``): opened in a fraction of a second.

The columns are those of :class:`ImageSet`, so nothing is parsed or checked again; the file carries checksums of its
own (it is a zip) and no code. ``poise shard`` writes it next to the tars that hold the images.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.columns import Ragged, Strings
from poise.data.errors import DataError
from poise.data.faults import FaultLog
from poise.data.image_set import Category, ImageColumns, ImageSet, ObjectColumns

FORMAT = "poise-annotations-1"
SUFFIX = ".annotations.npz"
_BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile, zlib.error)


def write_annotations(image_set: ImageSet, file: Path, sizes: dict[str, int]) -> None:
    """Write the columns of an image set.

    Args:
        sizes: bytes of every file that the images are read from, by its name relative to ``file``'s folder.
    """
    header = {
        "format": FORMAT,
        "split": image_set.name,
        "kind": image_set.format,
        "categories": [asdict(category) for category in image_set.categories],
        "files": sizes,
    }
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), "offsets": image_set.offsets}
    for group, columns in (("images", image_set.images), ("objects", image_set.objects)):
        for field in fields(columns):
            arrays |= _arrays(f"{group}.{field.name}", getattr(columns, field.name))
    with file.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]  # its last named argument is a flag


def _arrays(name: str, column: Any) -> dict[str, np.ndarray]:
    """A column as arrays: strings and lists are two each."""
    if column is None:
        return {}
    if isinstance(column, np.ndarray):
        return {name: column}
    values = column.buffer if isinstance(column, Strings) else column.values
    kind = "strings" if isinstance(column, Strings) else "lists"
    return {f"{name}.{kind}": values, f"{name}.offsets": column.offsets}


def find_packed(path: Path) -> dict[str, Callable[[FaultLog], ImageSet]]:
    """A reader for each split whose packed annotations lie in a folder."""
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []
    return {file.name.removesuffix(SUFFIX): partial(_read, file) for file in files}


def _read(file: Path, log: FaultLog) -> ImageSet:
    """As every format's reader; what was faulty never came into the file."""
    return read_annotations(file)


def read_annotations(file: Path) -> ImageSet:
    """The image set that was packed.

    Raises:
        DataError: the file is damaged, or what holds the images is missing or has another size.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
        result = _image_set(file.parent, header, arrays)
        _check(result)
        sizes: dict[str, int] = header["files"]
    except _BROKEN as error:
        raise DataError(
            f"{file}: is no readable file of annotations ({error}); write it anew with poise shard"
        ) from error
    for name, size in sizes.items():
        found = (file.parent / name).stat().st_size if (file.parent / name).is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise DataError(f"{file.parent / name}: {what}; copy it again, or write the shards anew with poise shard")
    return result


def _image_set(root: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> ImageSet:
    images = ImageColumns(**{field.name: _column(f"images.{field.name}", arrays) for field in fields(ImageColumns)})
    names = [field.name for field in fields(ObjectColumns) if field.name != "every_class"]
    every_class = arrays.get("objects.every_class")
    objects = ObjectColumns(**{name: arrays[f"objects.{name}"] for name in names}, every_class=every_class)
    categories = tuple(Category(**category) for category in header["categories"])
    return ImageSet(header["split"], root, header["kind"], categories, images, objects, arrays["offsets"])


def _column(name: str, arrays: dict[str, np.ndarray]) -> Any:
    if name in arrays:
        return arrays[name]
    if f"{name}.strings" in arrays:
        return Strings(arrays[f"{name}.strings"], arrays[f"{name}.offsets"])
    return Ragged(arrays[f"{name}.lists"], arrays[f"{name}.offsets"]) if f"{name}.lists" in arrays else None


def _check(image_set: ImageSet) -> None:
    """Raise ``ValueError`` where columns do not fit one another."""
    images, objects, offsets = image_set.images, image_set.objects, image_set.offsets
    counts = {len(images.ids), len(images.files), len(images.widths), len(images.heights), len(offsets) - 1}
    rows = {len(getattr(objects, field.name)) for field in fields(objects) if field.name != "every_class"}
    labels = objects.labels
    if len(counts) != 1 or len(rows) != 1 or objects.boxes.shape[1:] != (4,):
        raise ValueError("its columns differ in length")
    if offsets[0] != 0 or offsets[-1] != len(objects) or (np.diff(offsets) < 0).any():
        raise ValueError("its objects do not belong to its images")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(image_set.categories):
        raise ValueError("a label beyond its categories")
