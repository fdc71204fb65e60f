"""Detections as matches: what COCO's AP needs of them, small enough to keep and quick to draw images from anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poise.evaluate.bootstrap import ImageMatches, image_matches

IOUS = np.arange(0.5, 1.0, 0.05).round(2)


@dataclass(frozen=True, eq=False)
class Matches(ImageMatches):
    """Detections of one run in a file, with one bit for each of the ten IoU thresholds."""

    def save(self, path: Path) -> None:
        bits = {name: np.packbits(getattr(self, name), axis=1) for name in ("right", "ignored")}
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"image": self.image.astype(np.uint16), "category": self.category.astype(np.uint8)}
        with path.open("wb") as file:
            np.savez_compressed(file, **columns, objects=self.objects.astype(np.uint16), **bits)

    @staticmethod
    def load(path: Path) -> Matches:
        with np.load(path, allow_pickle=False) as file:
            bits = [np.unpackbits(file[name], axis=1, count=len(IOUS)).astype(bool) for name in ("right", "ignored")]
            return Matches(file["image"], file["category"], *bits, file["objects"])


def match(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Matches:
    """The library's matches, with the images in the order of their ids, so that all runs have the same order."""
    ordered = {**truth, "images": sorted(truth["images"], key=lambda record: record["id"])}
    return Matches(**vars(image_matches(ordered, detections)))
