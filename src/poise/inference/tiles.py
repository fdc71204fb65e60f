"""Large images in overlapping tiles, so that small objects keep their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

ImageDetections = tuple[Tensor, Tensor, Tensor]  # boxes (n,4) xyxy, scores (n,), labels (n,)
EDGE = 2.0  # pixels: a box that comes so near to a tile's inner border may be cut there
INSIDE = 0.7  # share of a cut box that must lie in a whole one to be a fragment of it
ALIGNED = 0.5  # IoU across the cut's direction of two fragments that are one object


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles, which are predicted at native resolution in addition to the whole image."""

    size: int = 640  # side of a tile in pixels of the image
    overlap: float = 0.25  # share of a tile that its neighbor sees too; objects up to there are never cut in all tiles
    nms: float = 0.5  # IoU above which the lower-ranked of two boxes of a class is dropped

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"tile={self.size} must be at least 32 pixels")
        if not 0 <= self.overlap < 0.9:
            raise ValueError(f"overlap={self.overlap} must lie in [0, 0.9)")

    def windows(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(x1, y1, x2, y2) of the tiles, row by row; they cover the image, and all have the same size."""
        return [
            (x, y, min(x + self.size, width), min(y + self.size, height))
            for y in self._starts(height)
            for x in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        """Evenly spread, with at least ``overlap``."""
        if length <= self.size:
            return [0]
        step = self.size * (1 - self.overlap)
        count = 1 + int(-(-(length - self.size) // step))
        return [round(i * (length - self.size) / (count - 1)) for i in range(count)]


def detect_tiled(
    image: Tensor,
    tiling: Tiling,
    whole: Callable[[Tensor], ImageDetections],
    tiles: Callable[[Sequence[Tensor]], Sequence[ImageDetections]],
) -> ImageDetections:
    """Detections of one image (3,H,W) from its tiles and from the whole.

    Args:
        whole: detections of the image in the model's own size, in pixels of the image.
        tiles: detections of each tile at native resolution, in pixels of the tile.
    """
    height, width = image.shape[-2:]
    windows = tiling.windows(height, width)
    complete = whole(image)
    if len(windows) == 1:
        return complete
    parts = tiles([image[:, y1:y2, x1:x2] for x1, y1, x2, y2 in windows])
    boxes, cuts = [complete[0]], [torch.zeros(len(complete[0]), 4, dtype=torch.bool)]
    for (x1, y1, x2, y2), (found, _, _) in zip(windows, parts, strict=True):
        boxes.append(found + found.new_tensor([x1, y1, x1, y1]))
        cuts.append(_cut_sides(found, (x2 - x1, y2 - y1), (x1 > 0, y1 > 0, x2 < width, y2 < height)))
    scores = torch.cat([complete[1], *(part[1] for part in parts)])
    labels = torch.cat([complete[2], *(part[2] for part in parts)])
    return merge(torch.cat(boxes), scores, labels, torch.cat(cuts), nms=tiling.nms)


def _cut_sides(boxes: Tensor, size: tuple[int, int], inner: tuple[bool, bool, bool, bool]) -> Tensor:
    """Which sides (left, top, right, bottom) of boxes (n,4) lie at an inner border of their tile, (n,4) bool."""
    near = torch.stack(
        (boxes[:, 0] < EDGE, boxes[:, 1] < EDGE, boxes[:, 2] > size[0] - EDGE, boxes[:, 3] > size[1] - EDGE), 1
    )
    return near & torch.tensor(inner)


def merge(boxes: Tensor, scores: Tensor, labels: Tensor, cuts: Tensor, *, nms: float) -> ImageDetections:
    """One list of detections from overlapping views.

    Cut boxes that lie in a whole one of their class go; fragments of one object that no view saw whole are merged; then
    class-wise NMS, in which whole boxes rank before cut ones.

    Args:
        boxes, scores, labels: (n,4), (n,), (n,) in pixels of the image.
        cuts: (n,4) bool, which sides were cut.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels, cuts = boxes[order], scores[order], labels[order], cuts[order]
    kept = ~_fragments(boxes, labels, cuts.any(1))
    boxes, scores, labels, cuts = boxes[kept], scores[kept], labels[kept], cuts[kept]
    boxes, scores, labels, cuts = _join(boxes, scores, labels, cuts)
    rank = torch.argsort(cuts.any(1).long(), stable=True)  # whole ones first, each kind by falling score
    boxes, scores, labels = boxes[rank], scores[rank], labels[rank]
    chosen = _suppress(boxes, labels, nms)
    chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
    return boxes[chosen], scores[chosen], labels[chosen]


def _fragments(boxes: Tensor, labels: Tensor, cut: Tensor) -> Tensor:
    """(n,) bool: cut boxes that lie for the most part in a whole box of their class."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(2) / (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)[:, None]
    return cut & ((inside > INSIDE) & (labels[:, None] == labels[None]) & ~cut[None]).any(1)


def _join(boxes: Tensor, scores: Tensor, labels: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut boxes that continue each other as one box around both, until none are left to join."""
    rows = list(zip(boxes.unbind(), scores.unbind(), labels.unbind(), cuts.unbind(), strict=True))
    i = 0
    while i < len(rows):
        partner = next((j for j in range(len(rows)) if j != i and _continue_each_other(rows[i], rows[j])), None)
        if partner is None:
            i += 1
            continue
        first, second = rows[i], rows.pop(partner)
        i -= partner < i
        rows[i] = _union(first, second)
        i = 0
    if not rows:
        return boxes, scores, labels, cuts
    merged = [torch.stack(column) for column in zip(*rows, strict=True)]
    return merged[0], merged[1], merged[2], merged[3]


Row = tuple[Tensor, Tensor, Tensor, Tensor]


def _continue_each_other(a: Row, b: Row) -> bool:
    """Same class, cut at facing sides, touching there, and of like extent across."""
    if a[2] != b[2] or not a[3].any() or not b[3].any():
        return False
    for along in (0, 1):
        for first, second in ((a, b), (b, a)):
            facing = bool(first[3][along + 2]) and bool(second[3][along])
            touching = first[0][along] < second[0][along] + EDGE and second[0][along] <= first[0][along + 2] + EDGE
            if facing and bool(touching) and _interval_iou(first[0], second[0], 1 - along) > ALIGNED:
                return True
    return False


def _interval_iou(a: Tensor, b: Tensor, axis: int) -> float:
    shared = min(float(a[axis + 2]), float(b[axis + 2])) - max(float(a[axis]), float(b[axis]))
    total = max(float(a[axis + 2]), float(b[axis + 2])) - min(float(a[axis]), float(b[axis]))
    return max(shared, 0.0) / max(total, 1e-6)


def _union(a: Row, b: Row) -> Row:
    """The box around both; a side stays cut where the box that reaches farthest there was cut."""
    low, high = torch.minimum(a[0], b[0])[:2], torch.maximum(a[0], b[0])[2:]
    box = torch.cat((low, high))
    cut = ((a[0] == box) & a[3] | (b[0] == box) & b[3]) & ~((a[0] == box) & ~a[3] | (b[0] == box) & ~b[3])
    return box, torch.maximum(a[1], b[1]), a[2], cut


def _suppress(boxes: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Positions kept by greedy class-wise NMS in the order given."""
    overlapping = (box_iou(boxes, boxes) > threshold) & (labels[:, None] == labels[None])
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if not gone[i]:
            gone[i + 1 :] |= overlapping[i, i + 1 :]
    return (~gone).nonzero().squeeze(1)
