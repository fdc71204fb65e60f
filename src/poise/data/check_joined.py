"""``poise check`` of several data sets: what a training on all of them would join, and pictures that they share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from poise.data.class_map import ClassMap
from poise.data.image_set import ImageSet
from poise.data.joining import Paths, as_paths, missing_annotations, prepare, source_names
from poise.data.opening import open_one, training_splits
from poise.data.statistics import count
from poise.suggestions import plural

SHOWN = 5  # equal pictures that a message names


@dataclass(frozen=True)
class JoinedReport:
    """Several data sets as a training joins them."""

    classes: dict[str, dict[str, int]]  # objects of each class in the training images of each data set
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Everything as plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """The report as lines for people."""
        sets = list(next(iter(self.classes.values())))
        width = max(len("class"), *(len(name) for name in self.classes))
        lines = [
            f"training images of {' + '.join(sets)}",
            f"{'class':<{width}}" + "".join(f"  {s:>{max(9, len(s))}}" for s in sets),
        ]
        for name, counts in self.classes.items():
            lines.append(f"{name:<{width}}" + "".join(f"  {counts[s]:>{max(9, len(s))}}" for s in sets))
        return "\n".join([*lines, *self.warnings])


def check_joined(paths: Paths, class_map: ClassMap | None = None, follow_links: bool = False) -> JoinedReport:
    """Join the training images of data sets, without their faulty records, and look for pictures that they share.

    Args:
        paths: two or more data sets.
        class_map: as in :func:`poise.data.open_data`.
        follow_links: as in :func:`poise.data.open_data`.
    """
    chosen = [(path, training_splits(path, follow_links=follow_links)) for path in as_paths(paths)]
    train = [open_one(path, splits.train, "skip", follow_links) for path, splits in chosen]
    val = [open_one(p, s.val, "skip", follow_links) if s.val != s.train else None for p, s in chosen]
    names = source_names([one.root for one in train])
    joined = prepare(train, class_map or {}, names)
    by_set = {}
    for number, name in enumerate(names):
        assert joined.images.source is not None
        by_set[name] = count(joined.subset((joined.images.source == number).nonzero()[0])).classes
    classes = {name: {one: counts[name] for one, counts in by_set.items()} for name in by_set[names[0]]}
    return JoinedReport(classes, (*missing_annotations(joined), *_shared(train, val, names)))


def _shared(train: Sequence[ImageSet], val: Sequence[ImageSet | None], names: Sequence[str]) -> list[str]:
    """Files with equal content in two data sets, where one of them is validated on."""
    by_size: dict[int, list[tuple[int, str, Path]]] = defaultdict(list)
    for part, sets in (("train", train), ("val", val)):
        for number, image_set in enumerate(sets):
            paths = () if image_set is None else map(image_set.path, range(len(image_set)))
            for path in paths:
                if path.is_file():  # not inside a tar
                    by_size[path.stat().st_size].append((number, part, path))
    equal = []
    for same in by_size.values():
        if len({number for number, _, _ in same}) > 1 and len({part for _, part, _ in same}) > 1:
            groups: dict[str, list[tuple[int, str, Path]]] = defaultdict(list)
            for entry in same:
                groups[hashlib.sha256(entry[2].read_bytes()).hexdigest()].append(entry)
            for group in groups.values():
                trained = [(n, p) for n, part, p in group if part == "train"]
                equal += [
                    (t, v)
                    for t in trained[:1]
                    for v in ((n, p) for n, part, p in group if part == "val")
                    if t[0] != v[0]
                ]
    if not equal:
        return []
    shown = ", ".join(f"{names[v[0]]}/{v[1].name}" for _, v in equal[:SHOWN])
    return [
        f"warning: {plural(len(equal), 'validation image')} of one data set are training images of another "
        f"({shown}); metrics are too good"
    ]
