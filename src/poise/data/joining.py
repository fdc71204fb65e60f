"""Several data sets as one: classes are joined by name, image ids begin with the name of their set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from poise.data.class_map import ClassMap, check_class_map, map_classes
from poise.data.columns import Ragged, Strings
from poise.data.errors import DataError
from poise.data.faults import Fault
from poise.data.image_set import Category, ImageColumns, ImageSet, ObjectColumns, Source
from poise.recipes.values import plain_class_map
from poise.suggestions import plural, shortlist

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"


def as_paths(path: Paths) -> tuple[Path, ...]:
    """One path or several as a tuple.

    Raises:
        DataError: none, or the same one twice.
    """
    paths = (Path(path),) if isinstance(path, (str, os.PathLike)) else tuple(Path(one) for one in path)
    if not paths:
        raise DataError("no data set: give at least one path")
    for one, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise DataError(f"{one}: the same data set is given {count} times")
    return paths


def source_names(roots: Sequence[Path]) -> list[str]:
    """A name for each of several data sets: its folder's, with the parent's where two are equal, else numbered."""
    names = [root.name or "data" for root in roots]
    counts = Counter(names)
    long = [f"{root.parent.name}-{name}" if counts[name] > 1 else name for root, name in zip(roots, names, strict=True)]
    return [name if long.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(long)]


def prepare(
    sets: Sequence[ImageSet],
    class_map: ClassMap,
    names: Sequence[str] = (),
    *,
    strict: bool = True,
    like: ImageSet | None = None,
    split: str = "",
) -> ImageSet:
    """Map the classes of image sets and join them.

    Args:
        sets: of several data sets, or of one.
        class_map: see :func:`poise.data.class_map.map_classes`.
        names: of the sets, as of :func:`source_names`; empty: one set, which is not joined.
        strict: refuse classes of the map that no set has.
        like: an image set with the joined classes; by default they are those of ``sets``.
        split: name of the joined set; by default that of the first.
    """
    class_map = plain_class_map(class_map)
    if strict:
        check_class_map(class_map, [name for one in sets for name in one.class_names])
    mapped = [map_classes(one, class_map) for one in sets]
    return join(mapped, names, like, split) if names else mapped[0]


def join(sets: Sequence[ImageSet], names: Sequence[str], like: ImageSet | None = None, split: str = "") -> ImageSet:
    """Join image sets of several data sets.

    Classes with equal names, ignoring case, are one class. Category ids are kept where they agree in all sets; else
    they are numbered from 1 in the order in which the classes appear. Image ids become ``NAME/ID``, files are relative
    to the common folder, annotations are numbered from 1. LVIS's lists are kept where all sets have them.
    """
    key = _key_of([*sets, like] if like is not None else sets)
    categories = _categories(sets, key) if like is None else like.categories
    label_of = {key(category.name): label for label, category in enumerate(categories)}
    tables = [np.array([label_of[key(name)] for name in one.class_names], np.int64) for one in sets]
    root = _common_root(sets)
    counts = np.concatenate([one.objects_per_image for one in sets])
    images = ImageColumns(
        Strings.of([f"{name}/{i}" for one, name in zip(sets, names, strict=True) for i in one.image_ids()]),
        Strings.of([file for one in sets for file in _files(one, root)]),
        np.concatenate([one.images.widths for one in sets]),
        np.concatenate([one.images.heights for one in sets]),
        *_lists(sets, tables, categories),
        source=np.repeat(np.arange(len(sets)), [len(one) for one in sets]),
    )
    spellings = [category.name for category in categories]
    return ImageSet(
        name=split or sets[0].name,
        root=root,
        format="+".join(dict.fromkeys(one.format for one in sets)),
        categories=categories,
        images=images,
        objects=_objects(sets, tables),
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        skipped=tuple(_renamed(fault, name) for one, name in zip(sets, names, strict=True) for fault in one.skipped),
        notes=tuple(_renamed(fault, name) for one, name in zip(sets, names, strict=True) for fault in one.notes),
        read_as=tuple(f"{name}: {text}" for one, name in zip(sets, names, strict=True) for text in one.read_as),
        sources=tuple(
            Source(name, one.root, one.name, tuple(spellings[k] for k in table), isinstance(one.images.ids, np.ndarray))
            for one, name, table in zip(sets, names, tables, strict=True)
        ),
    )


def missing_annotations(image_set: ImageSet) -> list[str]:
    """Warnings of joined data sets that do not annotate all classes: such objects count as background."""
    warnings: list[str] = []
    objects, source_of = image_set.objects, image_set.images.source
    if source_of is None:
        return warnings
    valid = ~(objects.crowd | objects.ignore)
    owners, labels = image_set.image_of_object[valid], objects.labels[valid]
    everywhere = np.bincount(labels, minlength=len(image_set.categories))
    for number, source in enumerate(image_set.sources):
        own = source_of == number
        shown = np.bincount(labels[own[owners]], minlength=len(image_set.categories))
        unknown = [name for name in image_set.class_names if name not in source.class_names]
        unseen = [
            name
            for name, here, total in zip(image_set.class_names, shown, everywhere, strict=True)
            if not here and total and name not in unknown
        ]
        cure = "; annotate them there, or drop the class with a class map, unless these images show none"
        for what, classes, then in (("does not annotate", unknown, cure), ("has no object of", unseen, "")):
            if classes:
                images = plural(int(own.sum()), "image")
                warnings.append(
                    f"warning: {source.name} {what} {shortlist(classes)}: objects of these classes in its {images} "
                    f"would count as background{then}"
                )
    return warnings


def _key_of(sets: Sequence[ImageSet]) -> Callable[[str], str]:
    """Names are compared without case, unless a data set has two classes that differ by case alone."""
    folded = all(len({name.casefold() for name in one.class_names}) == len(set(one.class_names)) for one in sets)
    return str.casefold if folded else str


def _categories(sets: Sequence[ImageSet], key: Callable[[str], str]) -> tuple[Category, ...]:
    found: dict[str, list[Category]] = {}
    for one in sets:
        for category in one.categories:
            found.setdefault(key(category.name), []).append(category)
    ids = {name: {category.id for category in same} for name, same in found.items()}
    kept = all(len(one) == 1 for one in ids.values()) and len(set.union(*ids.values())) == len(ids)
    frequency = {name: next((c.frequency for c in same if c.frequency), None) for name, same in found.items()}
    result = [
        replace(same[0], id=same[0].id if kept else position, frequency=frequency[name])
        for position, (name, same) in enumerate(found.items(), 1)
    ]
    return tuple(sorted(result, key=lambda category: category.id))


def _common_root(sets: Sequence[ImageSet]) -> Path:
    """The folder that holds all sets; of sets on several drives of Windows, the first one's."""
    try:
        return Path(os.path.commonpath([one.root for one in sets]))
    except ValueError:
        return sets[0].root


def _files(one: ImageSet, root: Path) -> list[str]:
    """Files relative to ``root``, or absolute where they are on another drive."""
    prefix = one.root.relative_to(root).as_posix() if one.root.is_relative_to(root) else one.root.as_posix()
    return [file if prefix == "." else f"{prefix}/{file}" for file in one.images.files.tolist()]


def _objects(sets: Sequence[ImageSet], tables: Sequence[np.ndarray]) -> ObjectColumns:
    parts = [replace(one.objects, labels=table[one.objects.labels]) for one, table in zip(sets, tables, strict=True)]
    with_regions = any(part.every_class is not None for part in parts)
    columns: dict[str, Any] = {}
    for field in fields(ObjectColumns):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "every_class":
            values = [np.zeros(len(p), bool) if v is None else v for p, v in zip(parts, values, strict=True)]
        columns[field.name] = np.concatenate(values) if field.name != "every_class" or with_regions else None
    columns["annotation_ids"] = np.arange(1, len(columns["labels"]) + 1)
    return ObjectColumns(**columns)


def _lists(
    sets: Sequence[ImageSet], tables: Sequence[np.ndarray], categories: Sequence[Category]
) -> tuple[Ragged | None, Ragged | None]:
    """LVIS's lists with the joined category ids."""
    result = []
    for name in ("negative", "not_exhaustive"):
        rows: list[list[int]] = []
        for one, table in zip(sets, tables, strict=True):
            lists: Ragged | None = getattr(one.images, name)
            if lists is None:
                return None, None
            ids = {category.id: categories[label].id for category, label in zip(one.categories, table, strict=True)}
            rows += [[ids[i] for i in lists[k] if i in ids] for k in range(len(one))]
        result.append(Ragged.of(rows))
    return result[0], result[1]


def _renamed(fault: Fault, name: str) -> Fault:
    return replace(fault, where=f"{name}: {fault.where}")
