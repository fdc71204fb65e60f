"""A detector that can be reasoned about: it sees rectangles of pure color, neither too small nor too large."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from poise.detection_model import DetectionModel
from poise.preprocess import Preprocess
from poise.structures import Detections

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class SeesColor(nn.Module):
    """Finds connected regions of each color; counts the images of every call."""

    def __init__(self, smallest: float = 10, largest: float = 10_000) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.smallest, self.largest = smallest, largest
        self.calls: list[int] = []

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        self.calls.append(len(pixels))
        found = [self._find(image[:, : int(h), : int(w)]) for image, (h, w) in zip(pixels, sizes.tolist(), strict=True)]
        most = max(1, *map(len, found)) if len(found) > 1 else max(1, len(found[0]))
        rows = torch.zeros(len(found), most, 6)
        valid = torch.zeros(len(found), most, dtype=torch.bool)
        for i, boxes in enumerate(found):
            for j, row in enumerate(sorted(boxes, key=lambda row: -row[4])):
                rows[i, j], valid[i, j] = torch.tensor(row), True
        return Detections(rows[..., :4], rows[..., 4], rows[..., 5].long(), valid)

    def _find(self, image: Tensor) -> list[tuple[float, ...]]:
        array, found = image.permute(1, 2, 0).numpy(), []
        for label, color in enumerate(COLOURS):
            regions, _ = ndimage.label(np.abs(array - np.array(color)).sum(2) < 200)
            for y, x in ndimage.find_objects(regions):
                width, height = x.stop - x.start, y.stop - y.start
                if self.smallest <= min(width, height) and max(width, height) <= self.largest:
                    score = 0.5 + min(width * height, 10_000) / 20_001
                    found.append((x.start, y.start, x.stop, y.stop, score, label))
        return found


def stand_in(smallest: float = 10, largest: float = 10_000, **preprocess: Any) -> DetectionModel:
    """A ``DetectionModel`` around :class:`SeesColor` whose input is at most 256 pixels wide and high."""
    settings = {**PLAIN, "short": 256, "long": 256, **preprocess}
    model = DetectionModel(SeesColor(smallest, largest), Preprocess(**settings), "sees_color", 3, options={})
    model.set_classes(("red", "green", "blue"), (4, 7, 9))
    return model


def scene(height: int, width: int, objects: list[tuple[int, int, int, int, int]]) -> Tensor:
    """A gray image (3,H,W) uint8 with rectangles x1, y1, x2, y2, label."""
    image = torch.full((3, height, width), 110, dtype=torch.uint8)
    for x1, y1, x2, y2, label in objects:
        image[:, y1:y2, x1:x2] = torch.tensor(COLOURS[label], dtype=torch.uint8)[:, None, None]
    return image
