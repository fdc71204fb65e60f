"""Remap layers that depend on the classes to other classes by their names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from poise.published import coco, objects365

KNOWN = (coco.NAMES, objects365.NAMES)  # classes of published checkpoints, identified by their number


def spellings(name: str) -> set[str]:
    """Return the spellings of a class for matching: lower case, no punctuation; for "a/b" each part and the whole."""
    return {"".join(c for c in part.lower() if c.isalnum()) for part in (name, *name.split("/"))} - {""}


def class_rows(own: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """Return the index in ``theirs`` of each class of ``own``, or -1."""
    index: dict[str, int] = {}
    for i, name in enumerate(theirs):
        for spelling in spellings(name):
            index.setdefault(spelling, i)
    return [next((index[s] for s in sorted(spellings(name), key=len, reverse=True) if s in index), -1) for name in own]


def remap_rows(
    own: Tensor, value: Tensor, rows: Sequence[int], theirs: int, *, class_major: bool = False
) -> Tensor | None:
    """Return ``own`` with the rows of the classes that ``value`` also has; None if the shapes do not fit.

    Args:
        own, value: parameters whose first axis is classes, or classes times something, or classes and a background.
        rows: for each own class its index in ``value``, or -1.
        theirs: number of classes of ``value``.
        class_major: the values of a class are adjacent (box offsets of a second stage); otherwise anchors come first.
    """
    number = len(rows)
    if own.shape[1:] != value.shape[1:]:
        return None
    for background in (0, 1):
        times, rest = divmod(own.shape[0] - background, number)
        if rest or not times or value.shape[0] != times * theirs + background or (background and times > 1):
            continue
        result = own.clone()
        own_rows, their_rows = result[: times * number], value[: times * theirs].to(own)
        own_rows, their_rows = (
            part.unflatten(0, (count, times) if class_major else (times, count)).movedim(int(not class_major), 0)
            for part, count in ((own_rows, number), (their_rows, theirs))
        )
        for i, row in enumerate(rows):
            if row >= 0:
                own_rows[i] = their_rows[row]
        if background:
            result[-1] = value[-1].to(own)
        return result
    return None


def names_of(value: Tensor, own: Tensor, number: int) -> Sequence[str] | None:
    """Return the known list of classes with the number that the shape of ``value`` implies, or None."""
    for names in KNOWN:
        if remap_rows(own, value, [-1] * number, len(names)) is not None:
            return names
    return None
