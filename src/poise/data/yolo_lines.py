"""Lines of YOLO label files: boxes, boxes with keypoints, oriented boxes and polygons.

========================================  =======================================  ==========================
line                                      columns                                  box
========================================  =======================================  ==========================
``class x y width height``                5                                        as written
``class x y width height x1 y1 ...``      5 + 2K or 5 + 3K, with ``kpt_shape``     the first four numbers
``class x1 y1 x2 y2 x3 y3 x4 y4``         9, without ``kpt_shape``                 around the four corners
``class x1 y1 ... xn yn``                 1 + 2n with n >= 3, without it           around the polygon
========================================  =======================================  ==========================

``x y`` of a box is its center; all coordinates are divided by the image's width and height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from poise.data.faults import FaultLog

SLACK = 0.01  # of the image's size that rounding may put a coordinate outside [0, 1]
BOX, KEYPOINTS, ORIENTED, POLYGON = "boxes", "boxes with keypoints", "oriented boxes", "polygons"


@dataclass
class Lines:
    """Objects of a split while its label files are read."""

    num_keypoints: int | None = None  # K of ``kpt_shape`` in ``data.yaml``
    owners: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)  # x1, y1, x2, y2 in pixels
    written: list[tuple[float, ...]] = field(default_factory=list)  # the first four numbers of each line
    where: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    fits_keypoints: set[int] = field(default_factory=set)  # column counts of which every line may hold keypoints
    no_keypoints: set[int] = field(default_factory=set)  # column counts of which a line cannot

    def add(self, line: str, owner: int, size: tuple[int, int], where: str, *, log: FaultLog) -> None:
        """Read a line; ``size`` is the width and height of its image in pixels."""
        words = line.split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            log.add("label-malformed", where, "not only numbers")
            return
        kind = self._kind(len(values))
        if kind is None:
            log.add("label-malformed", where, f"{len(values)} columns; {self._expected()}")
            return
        if not math.isfinite(values[0]) or not values[0].is_integer() or abs(values[0]) >= 2**53:
            log.add("label-malformed", where, f"class {words[0][:40]} is not an integer")
            return
        numbers = values[1:5] if kind in (BOX, KEYPOINTS) else values[1:]
        finite = [value for value in numbers if math.isfinite(value)]
        if finite and not (-SLACK <= min(finite) and max(finite) <= 1 + SLACK) and not _negative_side(numbers):
            log.add("label-not-normalized", where, line[:80])
            return
        self.owners.append(owner)
        self.classes.append(int(values[0]))
        self.boxes.append(_corners(numbers, *size))
        self.written.append(tuple(numbers[:4]))
        self.where.append(where)
        self.kinds.append(kind)
        if kind in (ORIENTED, POLYGON):
            (self.fits_keypoints if _fits_keypoints(numbers) else self.no_keypoints).add(len(values))

    def unclear(self) -> str:
        """Why the polygons of a split could be boxes with keypoints; empty where they could not."""
        columns = self.fits_keypoints | self.no_keypoints
        if self.num_keypoints is not None or len(columns) != 1 or self.no_keypoints:
            return ""
        count, number = columns.pop(), sum(kind in (ORIENTED, POLYGON) for kind in self.kinds)
        if number < 2:
            return ""
        return (
            f"all {number} lines with {count} columns are read as polygons, but fit a box with {(count - 5) // 2} "
            "points inside it; if they are keypoints, write kpt_shape into data.yaml"
        )

    def _kind(self, columns: int) -> str | None:
        if columns == 5:
            return BOX
        if self.num_keypoints is not None:
            return KEYPOINTS if columns - 5 in (2 * self.num_keypoints, 3 * self.num_keypoints) else None
        if columns == 9:
            return ORIENTED
        return POLYGON if columns >= 7 and columns % 2 else None

    def _expected(self) -> str:
        if self.num_keypoints is None:
            return "5, or 1 + 2 for each of 3 or more points"
        two, three = 5 + 2 * self.num_keypoints, 5 + 3 * self.num_keypoints
        return f"5, {two} or {three} by kpt_shape"


def _negative_side(values: list[float]) -> bool:
    """Whether a box has a negative width or height: it is degenerate rather than in another unit."""
    return len(values) == 4 and min(values[2:]) < 0 and all(-SLACK <= value <= 1 + SLACK for value in values[:2])


def _fits_keypoints(numbers: list[float]) -> bool:
    """Whether all points after the first two lie in the box that the first four numbers would be."""
    x, y, width, height = numbers[:4]
    xs, ys = numbers[4::2], numbers[5::2]
    across = all(abs(value - x) <= width / 2 + SLACK or value == 0 for value in xs)
    return across and all(abs(value - y) <= height / 2 + SLACK or value == 0 for value in ys)


def _corners(values: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, w, h = values
        return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
    if not all(math.isfinite(value) for value in values):  # min and max would hide it
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = values[::2], values[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height
