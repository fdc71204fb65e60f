"""Whole files whose boxes are in another unit or order of numbers than their format says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ENOUGH = 10  # boxes of which an order of numbers can be recognized
OUTSIDE = 0.2  # share of them that must leave their image when read as the format says
SLACK = 0.01  # of the image's size


@dataclass(frozen=True, eq=False)
class Written:
    """The four numbers of each box as they stand in the file."""

    numbers: np.ndarray  # (m,4) x, y, width, height
    boxes: np.ndarray | None = None  # (m,) bool, which rows are boxes at all; None: all
    normalized: bool = False  # centers and sizes divided by the image's (YOLO); else corners and sizes in pixels


def other_unit(written: Written | None, boxes: np.ndarray, sizes: np.ndarray) -> str:
    """Why all boxes of a split seem to be in another unit; empty where they do not.

    Args:
        written: as they stand in the file, where that differs from ``boxes``.
        boxes: (m,4) as read, xyxy pixels.
        sizes: (m,2) width and height of the image of each.
    """
    solid = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not solid.any():
        return ""
    pixels = written is None or not written.normalized
    low, high = boxes[solid].min(), boxes[solid].max()
    if pixels and 0 <= low and high <= 1 + SLACK and sizes[solid].min() > 2:
        return (
            f"all {int(solid.sum())} boxes lie within 0..1: they seem to be divided by the image's size; multiply them "
            "by its width and height in pixels"
        )
    return _corners(written, sizes) if written is not None else ""


def _corners(written: Written, sizes: np.ndarray) -> str:
    """Boxes written as x1, y1, x2, y2 although the format wants a width and a height."""
    rows = np.isfinite(written.numbers).all(1)
    if written.boxes is not None:
        rows &= written.boxes
    if rows.sum() < ENOUGH:
        return ""
    x, y, width, height = written.numbers[rows].T
    across, down = np.ones_like(sizes[rows].T) if written.normalized else sizes[rows].T
    is_corners = (width > x) & (height > y) & (width <= across * (1 + SLACK)) & (height <= down * (1 + SLACK))
    reach = 0.5 if written.normalized else 1.0
    outside = (x + reach * width > across * (1 + SLACK)) | (y + reach * height > down * (1 + SLACK))
    if written.normalized:
        outside |= (x - width / 2 < -SLACK) | (y - height / 2 < -SLACK)
    if not is_corners.all() or outside.mean() < OUTSIDE:
        return ""
    wanted = "center x, center y, width, height" if written.normalized else "x, y, width, height"
    return (
        f"all {int(rows.sum())} boxes seem to be x1, y1, x2, y2, and {int(outside.sum())} of them leave their image "
        f"when read as {wanted}; write the latter"
    )
