"""Layers that depend on the classes, carried over to other classes by their names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from poise.published import coco, objects365

KNOWN = (coco.NAMES, objects365.NAMES)  # of published checkpoints, told apart by their number


def spellings(name: str) -> set[str]:
    """Names under which a class is looked for: lower case, without signs; of "a/b" both and the whole."""
    return {"".join(c for c in part.lower() if c.isalnum()) for part in (name, *name.split("/"))} - {""}


def class_rows(own: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """Position in ``theirs`` of the class of each of ``own``, -1 where there is none."""
    place: dict[str, int] = {}
    for i, name in enumerate(theirs):
        for spelling in spellings(name):
            place.setdefault(spelling, i)
    return [next((place[s] for s in sorted(spellings(name), key=len, reverse=True) if s in place), -1) for name in own]


def carried_over(
    own: Tensor, value: Tensor, rows: Sequence[int], theirs: int, class_major: bool = False
) -> Tensor | None:
    """``own`` with the rows of the classes that ``value`` has too; None where the shapes do not count classes.

    Args:
        own, value: parameters whose first axis is classes, or classes times something, or classes and a background.
        rows: for each own class that of ``value``, or -1.
        theirs: number of classes of ``value``.
        class_major: what belongs to one class lies together (box offsets of a second stage); else anchors come first.
    """
    number = len(rows)
    for background in (0, 1):
        times, rest = divmod(own.shape[0] - background, number)
        if rest or not times or value.shape[0] != times * theirs + background or (background and times > 1):
            continue
        result = own.clone()
        mine, given = result[: times * number], value[: times * theirs].to(own)
        mine, given = (
            part.unflatten(0, (count, times) if class_major else (times, count)).movedim(int(not class_major), 0)
            for part, count in ((mine, number), (given, theirs))
        )
        for i, row in enumerate(rows):
            if row >= 0:
                mine[i] = given[row]
        if background:
            result[-1] = value[-1].to(own)
        return result
    return None


def names_of(value: Tensor, own: Tensor, number: int) -> Sequence[str] | None:
    """The known list of classes that a parameter of another number of classes must have."""
    for names in KNOWN:
        if carried_over(own, value, [-1] * number, len(names)) is not None:
            return names
    return None
