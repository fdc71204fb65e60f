"""A map of class names: classes are renamed, merged, dropped, or turned into regions to ignore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from poise.data.columns import Ragged
from poise.data.errors import DataError
from poise.data.image_set import Category, ImageSet
from poise.suggestions import did_you_mean

ClassMap = Mapping[str, str | None]
"""Name of a class to its new name; None drops the class, ``IGNORE`` makes its objects regions to ignore."""

IGNORE = "ignore"
DROPPED, REGION = -1, -2  # instead of a label
RARITIES = "rcf"  # LVIS's frequencies, the rarest first


def check_class_map(class_map: ClassMap, names: Iterable[str]) -> None:
    """Check that every class of the map exists.

    Raises:
        DataError: one does not; the nearest name is suggested.
    """
    known = list(dict.fromkeys(names))
    if empty := [name for name, target in class_map.items() if target == ""]:
        raise DataError(f"class map: the new name of '{empty[0]}' is empty; null drops a class")
    for name in class_map:
        if name not in known:
            hint = did_you_mean(name, known) or f"; the classes are {', '.join(known[:20])}"
            raise DataError(f"class map: the data has no class '{name}'{hint}")


def map_classes(image_set: ImageSet, class_map: ClassMap) -> ImageSet:
    """Rename, merge and drop the classes of an image set; classes that the map does not name are kept.

    Objects of a dropped class are removed, so that their pixels are background. Objects of an ignored class become
    crowd regions of every class: no detection inside them is counted, of whatever class. A class that several names are
    mapped to has the position and the category id of the first of them.

    Raises:
        DataError: no class is left.
    """
    if not class_map.keys() & set(image_set.class_names):
        return image_set
    targets = [class_map.get(name, name) for name in image_set.class_names]
    ignored = [
        name in class_map and target == IGNORE for name, target in zip(image_set.class_names, targets, strict=True)
    ]
    names = list(dict.fromkeys(t for t, region in zip(targets, ignored, strict=True) if t is not None and not region))
    if not names:
        raise DataError(f"{image_set.root}: the class map drops all classes: {', '.join(image_set.class_names[:20])}")
    table = np.array(
        [
            REGION if region else DROPPED if target is None else names.index(target)
            for target, region in zip(targets, ignored, strict=True)
        ],
        np.int64,
    )
    labels = table[image_set.objects.labels]
    kept = replace(image_set, objects=replace(image_set.objects, labels=labels)).with_objects(labels != DROPPED)
    objects, region = kept.objects, kept.objects.labels == REGION
    every_class = region if objects.every_class is None else objects.every_class | region
    objects = replace(
        objects,
        labels=np.where(region, 0, objects.labels),
        crowd=objects.crowd | region,
        ignore=objects.ignore & ~region,
        every_class=every_class if every_class.any() else None,
    )
    members = [
        [c for c, label in zip(image_set.categories, table, strict=True) if label == k] for k in range(len(names))
    ]
    categories = tuple(_merged(name, own) for name, own in zip(names, members, strict=True))
    return replace(_with_lists(kept, image_set, table, categories), categories=categories, objects=objects)


def _merged(name: str, members: list[Category]) -> Category:
    """One category of several; of LVIS's frequencies the most frequent one."""
    known = [one.frequency for one in members if one.frequency in tuple(RARITIES)]
    frequency = max(known, key=lambda one: RARITIES.index(str(one))) if known else members[0].frequency
    return Category(members[0].id, name, frequency, members[0].supercategory if len(members) == 1 else None)


def _with_lists(kept: ImageSet, before: ImageSet, table: np.ndarray, categories: tuple[Category, ...]) -> ImageSet:
    """LVIS's lists for the new classes.

    A class is known to be absent where all of its members are. It is not annotated exhaustively where that holds for a
    member, or where one member is present and another was not verified.
    """
    images = before.images
    if images.negative is None or images.not_exhaustive is None:
        return kept
    label_of = {category.id: label for label, category in enumerate(before.categories)}
    negative, not_exhaustive = [], []
    members = [set(np.flatnonzero(table == k).tolist()) for k in range(len(categories))]
    for i in range(len(before)):
        shown = set(before.objects.labels[before.offsets[i] : before.offsets[i + 1]].tolist())
        absent, partial = (
            {label_of[c] for c in lists[i] if c in label_of} for lists in (images.negative, images.not_exhaustive)
        )
        touched = {int(table[label]) for label in shown | absent | partial} - {DROPPED, REGION}
        negative.append([categories[k].id for k in sorted(touched) if members[k] <= absent])
        incomplete = [
            k for k in sorted(touched) if members[k] & partial or (members[k] & shown and members[k] - shown - absent)
        ]
        not_exhaustive.append([categories[k].id for k in incomplete])
    columns = replace(kept.images, negative=Ragged.of(negative), not_exhaustive=Ragged.of(not_exhaustive))
    return replace(kept, images=columns)
