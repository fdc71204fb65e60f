"""Augmentations that need further images: mosaic, mixup, copy-paste. All work on scenes of one training image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from poise.data.augment.chance import between, happens, whole_number
from poise.data.augment.geometry import fit, fitting_size, resized_part, window
from poise.data.augment.scene import (
    Scene,
    plain_boxes,
    select,
    size_of,
    skipped,
    with_objects,
    without_proposals,
)

TILE_FACTORS = (0.5, 1.5)  # of a mosaic's images, relative to the size at which they fill the canvas
CENTER_RANGE = (0.3, 0.7)  # of a mosaic's crossing, as shares of width and height
BLEND_FACTORS = (0.5, 1.5)  # size of the image that mixup blends in
BLEND_SHARES = (0.4, 0.6)  # weight of the first image in mixup
PASTE_FACTORS = (0.5, 1.5)  # size of the image that boxes are copied from
PASTE_SHARE = 0.5  # probability that an object is copied
MAX_PASTED = 10  # objects copied into one image
MAX_PASTED_IN_PLACE, MAX_CHANGE, MIN_PIXELS = 99, 10.0, 300  # of ``paste_in_place``
LEAST_UNCOVERED = 0.3  # an object that pasted boxes leave less of is removed


def mosaic(scenes: Sequence[Scene], height: int, width: int) -> Scene:
    """Four scenes around a random crossing on a canvas of ``height`` × ``width`` (Bochkovskiy et al. 2020, "YOLOv4").

    Each is scaled by its own factor; of one larger than its quarter a random part is shown, a smaller one touches
    the crossing. The rest is gray (114).
    """
    if len(scenes) != 4:
        raise ValueError(f"a mosaic is made of 4 scenes, not {len(scenes)}")
    y = int(height * between(*CENTER_RANGE))
    x = int(width * between(*CENTER_RANGE))
    corners = ((0, 0), (0, x), (y, 0), (y, x))
    extents = ((y, x), (y, width - x), (height - y, x), (height - y, width - x))
    tiles = []
    for scene, (top, left), extent in zip(scenes, corners, extents, strict=True):
        scaled = fitting_size(scene, height, width, between(*TILE_FACTORS))
        tiles.append(_tile(scene, scaled, extent, top == 0, left == 0))
    upper, lower = (torch.cat([tile["image"].as_subclass(Tensor) for tile in row], 2) for row in (tiles[:2], tiles[2:]))
    moved = [plain_boxes(t) + torch.tensor([left, top] * 2) for t, (top, left) in zip(tiles, corners, strict=True)]
    return with_objects(torch.cat((upper, lower), 1), *zip(tiles, moved, strict=True))


def _tile(scene: Scene, scaled: tuple[int, int], extent: tuple[int, int], above: bool, before: bool) -> Scene:
    """What a mosaic shows of a scene, resized to ``scaled``, in a quarter ``above`` and ``before`` (left of) it.

    Only the part that is shown is resized. It consists of whole pixels of the image, so that its scale differs from
    that of the whole by less than a pixel along each side.
    """
    spans = []
    for own, length, limit, outer in zip(size_of(scene), scaled, extent, (above, before), strict=True):
        offset = whole_number(0, length - limit) if length > limit else 0
        shown = min(length, limit)
        count = max(1, min(own, round(shown * own / length)))
        spans.append((min(round(offset * own / length), own - count), count, shown, shown - limit if outer else 0))
    (first_row, rows, high, top), (first_column, columns, wide, left) = spans
    cut = resized_part(scene, (first_row, first_column, rows, columns), (high, wide))
    return window(cut, top=top, left=left, height=extent[0], width=extent[1])


def mixup(scene: Scene, other: Scene) -> Scene:
    """Blend a second scene into the first, whose size stays; the objects of both are kept (Zhang et al. 2019, BoF).

    The second is scaled by a random factor and placed or cut at random. Where it has no pixels, the first one's stay.
    """
    height, width = size_of(scene)
    scaled = fit(other, height, width, between(*BLEND_FACTORS))
    high, wide = size_of(scaled)
    top, left = _offset(high - height), _offset(wide - width)
    placed = window(scaled, top=top, left=left, height=height, width=width)
    rows = slice(max(-top, 0), min(high - top, height))
    columns = slice(max(-left, 0), min(wide - left, width))
    share = between(*BLEND_SHARES)
    image = scene["image"].as_subclass(Tensor).clone()
    first, second = image[:, rows, columns].float(), placed["image"].as_subclass(Tensor)[:, rows, columns].float()
    image[:, rows, columns] = first.mul_(share).add_(second, alpha=1 - share).round_().to(torch.uint8)
    return with_objects(image, (scene, plain_boxes(scene)), (placed, plain_boxes(placed)))


def _offset(excess: int) -> int:
    """A random offset of a window that lies within what is larger than it, or around what is smaller."""
    return whole_number(min(excess, 0), max(excess, 0))


def copy_paste(scene: Scene, other: Scene) -> Scene:
    """Paste boxes of a second scene at random places of the first, with the pixels inside them.

    (The box form of Ghiasi et al. 2021.) At most 10 objects, each with probability 0.5; crowd and ignore regions are
    not copied, nor proposals. Objects of either scene of which pasted boxes leave less than 0.3 uncovered are removed.
    """
    height, width = size_of(scene)
    scaled = without_proposals(fit(other, height, width, between(*PASTE_FACTORS)))
    scaled = select(scaled, _chosen(scaled, height, width))
    image = scene["image"].as_subclass(Tensor).clone()
    source = scaled["image"].as_subclass(Tensor)
    layer = torch.zeros(height, width, dtype=torch.int64)  # number of the uppermost pasted box of each pixel
    pasted = []
    for number, box in enumerate(plain_boxes(scaled).tolist(), 1):
        x1, y1, x2, y2 = _hull(box)
        left, top = whole_number(0, width - (x2 - x1)), whole_number(0, height - (y2 - y1))
        rows, columns = slice(top, top + y2 - y1), slice(left, left + x2 - x1)
        image[:, rows, columns] = source[:, y1:y2, x1:x2]
        layer[rows, columns] = number
        pasted.append([box[0] - x1 + left, box[1] - y1 + top, box[2] - x1 + left, box[3] - y1 + top])
    boxes = torch.tensor(pasted).reshape(-1, 4)
    combined = with_objects(image, (scene, plain_boxes(scene)), (scaled, boxes))
    depth = [0] * len(scene["labels"]) + list(range(1, len(pasted) + 1))
    left_alone = skipped(combined)
    visible = [
        region or _uncovered(layer, box, number) >= LEAST_UNCOVERED
        for box, number, region in zip(plain_boxes(combined).tolist(), depth, left_alone.tolist(), strict=True)
    ]
    return select(combined, torch.tensor(visible, dtype=torch.bool))


def paste_in_place(scene: Scene, other: Scene) -> Scene:
    """Paste boxes of a second scene of the same size where they lie, with the pixels inside them.

    Co-DETR's copy-paste with boxes for masks: 0 to 99 objects, drawn; crowd and ignore regions are not copied. What is
    left of an object under them is the smallest box around its uncovered pixels; it stays if this box differs by at
    most 10 pixels on every side, or if more than 300 of its pixels are uncovered.
    """
    objects = torch.nonzero(~skipped(other)).flatten()
    count = whole_number(0, min(len(objects), MAX_PASTED_IN_PLACE))
    pasted = select(other, objects[torch.randperm(len(objects))[:count]])
    image, source = scene["image"].as_subclass(Tensor).clone(), other["image"].as_subclass(Tensor)
    free = torch.ones(size_of(scene), dtype=torch.bool)
    for box in plain_boxes(pasted).tolist():
        x1, y1, x2, y2 = _hull(box)
        image[:, y1:y2, x1:x2] = source[:, y1:y2, x1:x2]
        free[y1:y2, x1:x2] = False
    regions, kept, boxes = skipped(scene).tolist(), [], plain_boxes(scene).clone()
    for i, box in enumerate(plain_boxes(scene).tolist()):
        left, pixels = _remaining(free, box)
        change = max(abs(a - b) for a, b in zip(left, box, strict=True))
        kept.append(regions[i] or (pixels > 0 and (change <= MAX_CHANGE or pixels > MIN_PIXELS)))
        if not regions[i]:
            boxes[i] = torch.tensor(left)
    combined = with_objects(image, (scene, boxes), (pasted, plain_boxes(pasted)))
    return select(combined, torch.tensor([*kept, *[True] * len(pasted["labels"])], dtype=torch.bool))


def _remaining(free: Tensor, box: Sequence[float]) -> tuple[list[float], int]:
    """The box around a box's free pixels, and their number; a side that no pasted box touches stays as it is."""
    x1, y1, x2, y2 = (max(side, 0) for side in _hull(box))
    part = free[y1:y2, x1:x2]
    rows, columns = part.any(1).nonzero().flatten(), part.any(0).nonzero().flatten()
    if not len(rows):
        return list(box), 0
    tight = (x1 + int(columns[0]), y1 + int(rows[0]), x1 + int(columns[-1]) + 1, y1 + int(rows[-1]) + 1)
    hull = (x1, y1, x1 + part.shape[1], y1 + part.shape[0])
    sides = [own if new == whole else float(new) for own, new, whole in zip(box, tight, hull, strict=True)]
    return sides, int(part.sum())


def _chosen(scene: Scene, height: int, width: int) -> Tensor:
    """Which objects are copied: drawn, not crowd, at least one pixel, and fitting into ``height`` × ``width``."""
    chosen, count = [], 0
    for box, left_alone in zip(plain_boxes(scene).tolist(), skipped(scene).tolist(), strict=True):
        x1, y1, x2, y2 = _hull(box)
        fits = x2 - x1 <= width and y2 - y1 <= height and min(box[2] - box[0], box[3] - box[1]) >= 1
        take = happens(PASTE_SHARE) and fits and not left_alone and count < MAX_PASTED
        count += take
        chosen.append(take)
    return torch.tensor(chosen, dtype=torch.bool)


def _hull(box: Sequence[float]) -> tuple[int, int, int, int]:
    """The whole pixels that a box touches."""
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _uncovered(layer: Tensor, box: Sequence[float], depth: int) -> float:
    """Share of a box's pixels that no box pasted later (with a greater number) covers; 1 for a box without pixels."""
    x1, y1, x2, y2 = _hull(box)
    part = layer[max(y1, 0) : y2, max(x1, 0) : x2]
    return float((part <= depth).float().mean()) if part.numel() else 1.0
