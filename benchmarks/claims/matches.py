"""Detections as matches: what COCO's AP needs of them, small enough to keep and quick to draw images from anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IOUS = np.arange(0.5, 1.0, 0.05).round(2)
RECALLS = np.linspace(0, 1, 101)
LIMIT = 100  # detections of an image
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections of one run in falling order of score, with one bit for each of the ten IoU thresholds.

    ``right``: the detection has an object at that IoU; ``ignored``: it counts neither way (crowds).
    """

    image: Array  # (n,) uint16
    category: Array  # (n,) uint8
    right: Array  # (n,10) bool
    ignored: Array  # (n,10) bool
    objects: Array  # (images, categories) number of objects that count

    def save(self, path: Path) -> None:
        bits = {name: np.packbits(getattr(self, name), axis=1) for name in ("right", "ignored")}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, image=self.image, category=self.category, objects=self.objects, **bits)

    @staticmethod
    def load(path: Path) -> Matches:
        with np.load(path, allow_pickle=False) as file:
            bits = [np.unpackbits(file[name], axis=1, count=len(IOUS)).astype(bool) for name in ("right", "ignored")]
            return Matches(file["image"], file["category"], *bits, file["objects"])


def match(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Matches:
    """COCO's matching, all sizes: by falling score, each takes the free object of its class with the highest IoU."""
    images = {record["id"]: k for k, record in enumerate(sorted(truth["images"], key=lambda r: r["id"]))}
    categories = {record["id"]: k for k, record in enumerate(sorted(truth["categories"], key=lambda r: r["id"]))}
    objects = np.zeros((len(images), len(categories)), np.uint16)
    groups: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    for record in truth["annotations"]:
        key = images[record["image_id"]], categories[record["category_id"]]
        groups.setdefault(key, ([], []))[0].append(record)
        objects[key] += not (record.get("iscrowd") or record.get("ignore"))
    for found in detections:
        key = images[found["image_id"]], categories[found["category_id"]]
        groups.setdefault(key, ([], []))[1].append(found)
    rows: list[tuple[float, int, int, Array, Array]] = []
    for (image, category), (wanted, found) in sorted(groups.items()):
        found = sorted(found, key=lambda one: -one["score"])[:LIMIT]
        right, ignored = _match_group(wanted, found)
        rows += [(f["score"], image, category, right[k], ignored[k]) for k, f in enumerate(found)]
    rows.sort(key=lambda row: -row[0])
    return Matches(
        np.array([row[1] for row in rows], np.uint16),
        np.array([row[2] for row in rows], np.uint8),
        np.array([row[3] for row in rows], bool).reshape(-1, len(IOUS)),
        np.array([row[4] for row in rows], bool).reshape(-1, len(IOUS)),
        objects,
    )


def _match_group(wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    """Right and ignored (n,10) for the detections of one class in one image."""
    crowd = np.array([bool(one.get("iscrowd")) for one in wanted], bool)
    left_out = crowd | np.array([bool(one.get("ignore")) for one in wanted], bool)
    order = np.argsort(left_out, kind="stable")
    boxes = np.array([wanted[k]["bbox"] for k in order], float).reshape(-1, 4)
    crowd, left_out = crowd[order], left_out[order]
    ious = _ious(np.array([one["bbox"] for one in found], float).reshape(-1, 4), boxes, crowd)
    right, ignored = np.zeros((len(found), len(IOUS)), bool), np.zeros((len(found), len(IOUS)), bool)
    for t, threshold in enumerate(IOUS):
        taken = np.zeros(len(boxes), bool)
        for k in range(len(found)):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for j in range(len(boxes)):
                if (taken[j] and not crowd[j]) or (chosen >= 0 and not left_out[chosen] and left_out[j]):
                    continue
                if ious[k, j] >= best:
                    best, chosen = ious[k, j], j
            if chosen >= 0:
                taken[chosen] = True
                right[k, t], ignored[k, t] = not left_out[chosen], left_out[chosen]
    return right, ignored


def _ious(a: Array, b: Array, crowd: Array) -> Array:
    """(n,m) IoU of x, y, width, height boxes; with a crowd the share of the detection inside it."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    inside = (high - low).clip(0).prod(2)
    own, other = a[:, 2:].prod(1)[:, None], b[:, 2:].prod(1)[None]
    return inside / np.where(crowd[None], own, own + other - inside).clip(1e-12)


def average_precision(matches: Matches, weights: Array) -> float:
    """AP when image i occurs ``weights[i]`` times; the mean over the classes that then have objects.

    Detections of one image share their weight, so drawing images with replacement needs no copy of a detection.
    """
    total = weights @ matches.objects.astype(float)  # (categories,)
    values = []
    for category in np.flatnonzero(total):
        rows = matches.category == category
        weight = weights[matches.image[rows]].astype(float)[:, None]
        right = np.cumsum(weight * matches.right[rows], 0)
        wrong = np.cumsum(weight * ~(matches.right[rows] | matches.ignored[rows]), 0)
        values.append(_interpolated(right, wrong, total[category]))
    return float(np.mean(values)) if values else float("nan")


def _interpolated(right: Array, wrong: Array, objects: float) -> float:
    """Mean over thresholds and 101 recalls of the best precision at that recall or a higher one."""
    if not len(right):
        return 0.0
    precision = right / np.maximum(right + wrong, np.finfo(float).eps)
    envelope = np.maximum.accumulate(precision[::-1], 0)[::-1]
    total = 0.0
    for t in range(right.shape[1]):
        first = np.searchsorted(right[:, t] / objects, RECALLS, side="left")
        total += envelope[first[first < len(envelope)], t].sum()
    return float(total / (right.shape[1] * len(RECALLS)))
