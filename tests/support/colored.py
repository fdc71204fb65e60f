"""Scenes of uniquely colored rectangles: where a color is found, there the object of that color must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from poise.data.augment import Scene, make_scene

PURE = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
MIXED = [[255, 128, 0], [128, 0, 255], [0, 255, 128], [255, 128, 128], [128, 255, 128], [128, 128, 255]]
COLOURS = torch.tensor(PURE + MIXED, dtype=torch.uint8)  # none is a blend of another with the ground or the fill
GROUND = 40  # a dark gray unlike any color and unlike the fill


def colored_scene(height: int, width: int, colors: list[int], seed: int, crowd: tuple[int, ...] = ()) -> Scene:
    """Rectangles that do not touch, one in each cell of a grid; the label is the number of the color."""
    generator = torch.Generator().manual_seed(seed)
    columns = 3
    rows = -(-len(colors) // columns)
    image = torch.full((3, height, width), GROUND, dtype=torch.uint8)
    boxes = []
    for cell, color in enumerate(colors):
        cell_h, cell_w = height // rows, width // columns
        top, left = cell // columns * cell_h, cell % columns * cell_w
        h, w = (int(torch.randint(s // 3, s - 3, (), generator=generator)) for s in (cell_h, cell_w))
        y = top + int(torch.randint(1, cell_h - h, (), generator=generator))
        x = left + int(torch.randint(1, cell_w - w, (), generator=generator))
        image[:, y : y + h, x : x + w] = COLOURS[color][:, None, None]
        boxes.append([x, y, x + w, y + h])
    flags = torch.tensor([color in crowd for color in colors], dtype=torch.bool)
    return make_scene(image, torch.tensor(boxes).float(), torch.tensor(colors), flags)


def extent(image: Tensor, color: int, tolerance: int = 30) -> Tensor | None:
    """The box (4,) around all pixels of a color; None if there is none."""
    near = (image.as_subclass(Tensor).int() - COLOURS[color].int()[:, None, None]).abs().amax(0) <= tolerance
    if not near.any():
        return None
    rows, columns = near.any(1).nonzero().flatten(), near.any(0).nonzero().flatten()
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def assert_boxes_are_where_colors_are(scene: Scene, tolerance: float) -> int:
    """Every box encloses its color to within ``tolerance`` pixels; returns how many boxes were looked at."""
    for box, label in zip(scene["boxes"].as_subclass(Tensor), scene["labels"].tolist(), strict=True):
        found = extent(scene["image"], label)
        if found is None:  # slivers may lie within the blur of their edge
            assert (box[2:] - box[:2]).min() <= 2 * tolerance
            continue
        assert (box - found).abs().max() <= tolerance, f"color {label}: box {box.tolist()}, pixels {found.tolist()}"
    return len(scene["labels"])


@dataclass(frozen=True, eq=False)
class FileRecord:
    """An image on disk with its objects."""

    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def write_records(folder: Path, counts: list[int], seed: int = 0) -> list[FileRecord]:
    """Noise images of alternating orientation with so many random boxes each; every second object is crowd."""
    rng = np.random.default_rng(seed)
    records = []
    for i, count in enumerate(counts):
        width, height = ((72, 48), (44, 64))[i % 2]
        path = folder / f"{i:03d}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        corner = rng.uniform(0, 20, (count, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(4, 20, (count, 2))), 1).astype(np.float32)
        crowd = np.arange(count) % 2 == 1
        labels = np.arange(count, dtype=np.int64) % 5
        records.append(FileRecord(path, width, height, boxes, labels, crowd, np.zeros(count, bool)))
    return records
