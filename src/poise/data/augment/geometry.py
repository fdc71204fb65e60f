"""Resizing and cutting scenes. Every function returns a new scene and leaves its argument as it was."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from poise.data.augment.chance import between, whole_number
from poise.data.augment.scene import FILL, Scene, boxes_on, clip_objects, plain_boxes, select, size_of, skipped
from poise.preprocess import Preprocess, sample_separably

PLAIN = Preprocess()  # half-pixel bilinear
LEAST_CROP_SIDE = 16  # smaller images are not cropped
LEAST_OF_JITTER = 1e-2  # pixels of an object's side that jitter on a square must leave


def resize(scene: Scene, height: int, width: int, preprocess: Preprocess = PLAIN, *, exact: bool = False) -> Scene:
    """Scale to this size in the way of ``preprocess``; boxes are multiplied by each axis' actual factor and clipped.

    Args:
        exact: interpolate in floating point, as predictions do. Otherwise bytes are interpolated, with a rounding
            between columns and rows: values may differ by 1 of 255, at a fifth of the time.
    """
    if size_of(scene) == (height, width):
        return scene
    image = scene["image"].as_subclass(Tensor)
    if exact or preprocess.corner_aligned:
        image = replace(preprocess, short=height, long=width, keep_ratio=False).resize(image)
    else:
        image = _resize_bytes(image, (height, width))
    old_height, old_width = size_of(scene)
    factor = torch.tensor([width / old_width, height / old_height] * 2)
    limit = torch.tensor([width, height] * 2)
    boxes = torch.minimum((plain_boxes(scene) * factor).clamp(min=0), limit)
    return {**scene, "image": v2.functional.to_image(image), "boxes": boxes_on(boxes, image)}


def resized_part(scene: Scene, part: tuple[int, int, int, int], size: tuple[int, int]) -> Scene:
    """The part (top, left, height, width) of the image, resized to ``size``; boxes go along and are not clipped."""
    top, left, height, width = part
    image = _resize_bytes(scene["image"].as_subclass(Tensor)[:, top : top + height, left : left + width], size)
    factor = torch.tensor([size[1] / width, size[0] / height] * 2)
    boxes = (plain_boxes(scene) - torch.tensor([left, top] * 2)) * factor
    return {**scene, "image": v2.functional.to_image(image), "boxes": boxes_on(boxes, image)}


def _resize_bytes(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if image.shape[-2:] == size else functional.interpolate(image[None], size=size, mode="bilinear")[0]


def warp(
    scene: Scene, height: int, width: int, *, scale: tuple[float, ...], stretch: tuple[float, ...], shift: float
) -> Scene:
    """Scale, stretch and shift the image about its center on a canvas of ``height`` × ``width``, black where it is not.

    One scale for both axes, one stretch for each; the center lands up to ``shift`` of the canvas away from the middle
    (NanoDet's ShapeTransform, whose flip is a transform of its own here). Unlike there, objects that leave the canvas
    are removed.
    """
    zoom = between(*scale)
    factors = [zoom * (between(*stretch) if stretch else 1.0) for _ in range(2)]
    middles = [0.5 + between(-shift, shift) for _ in range(2)]
    image = scene["image"].as_subclass(Tensor)
    gains, offsets, positions = [], [], []
    for old, new, factor, middle in zip(size_of(scene), (height, width), factors, middles, strict=True):
        gains.append(factor * new / old)
        offsets.append(middle * new - gains[-1] * old / 2)
        positions.append((torch.arange(new, dtype=torch.float64) - offsets[-1]) / gains[-1])
    canvas = sample_separably(image, *positions)
    boxes = plain_boxes(scene) * torch.tensor(gains[::-1] * 2) + torch.tensor(offsets[::-1] * 2)
    moved = {**scene, "image": v2.functional.to_image(canvas), "boxes": boxes_on(boxes, canvas)}
    return clip_objects(moved, least_visible=0.0)


def draw_size(preprocess: Preprocess, short_range: tuple[int, ...] = (), choices: tuple[int, ...] = ()) -> Preprocess:
    """``preprocess`` with the shorter side drawn from ``choices``, or from the whole numbers of ``short_range``.

    The limit of the longer side stays, as in the published multi-scale recipes, unless the shorter side would
    exceed it. Where the ratio is not kept, width and height change by the same factor.
    """
    if choices:
        short = choices[whole_number(0, len(choices) - 1)]
    elif short_range:
        short = whole_number(int(short_range[0]), int(short_range[1]))
    else:
        return preprocess
    if preprocess.keep_ratio:
        return replace(preprocess, short=short, long=max(short, preprocess.long))
    return replace(preprocess, short=short, long=max(1, round(preprocess.long * short / preprocess.short)))


def window(
    scene: Scene,
    *,
    top: int,
    left: int,
    height: int,
    width: int,
    least_visible: float = 0.1,
    least_side: float = 1.0,
) -> Scene:
    """The part of the scene under a rectangle, which may reach beyond the image: there it is gray (114)."""
    image = scene["image"].as_subclass(Tensor)
    full_height, full_width = size_of(scene)
    y1, x1, y2, x2 = max(top, 0), max(left, 0), min(top + height, full_height), min(left + width, full_width)
    if (y2 - y1, x2 - x1) == (height, width):
        canvas = image[:, y1:y2, x1:x2].contiguous()
    else:
        canvas = torch.full((3, height, width), FILL, dtype=image.dtype)
        if y2 > y1 and x2 > x1:
            canvas[:, y1 - top : y2 - top, x1 - left : x2 - left] = image[:, y1:y2, x1:x2]
    boxes = plain_boxes(scene) - torch.tensor([left, top, left, top])
    cut = {**scene, "image": v2.functional.to_image(canvas), "boxes": boxes_on(boxes, canvas)}
    return clip_objects(cut, least_visible, least_side)


def fitting_size(scene: Scene, height: int, width: int, factor: float) -> tuple[int, int]:
    """``factor`` times the largest size of the scene's ratio that fits into ``height`` × ``width``."""
    old_height, old_width = size_of(scene)
    scale = factor * min(height / old_height, width / old_width)
    return max(1, int(old_height * scale + 0.5)), max(1, int(old_width * scale + 0.5))


def fit(scene: Scene, height: int, width: int, factor: float) -> Scene:
    """Resize to :func:`fitting_size`."""
    return resize(scene, *fitting_size(scene, height, width, factor))


def large_scale_jitter(scene: Scene, height: int, width: int, factors: tuple[float, ...]) -> Scene:
    """Scale by a factor drawn from ``factors`` relative to ``height`` × ``width``, then cut a window of that size.

    (Ghiasi et al. 2021, "Simple Copy-Paste", section 3.) What became smaller than the window is not padded here:
    the batch pads it, so that the size of the image stays known.
    """
    factor = between(*factors)
    scaled = resize(scene, max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
    high, wide = size_of(scaled)
    top = whole_number(0, max(high - height, 0))
    left = whole_number(0, max(wide - width, 0))
    return window(scaled, top=top, left=left, height=min(high, height), width=min(wide, width))


def canvas_jitter(scene: Scene, side: int, factors: tuple[float, ...]) -> Scene:
    """Large-scale jitter on a square, as Co-DETR's recipes have it.

    The image is scaled, keeping its shape, to fit into ``floor(side * factor)`` pixels; where it is larger than the
    square a random part is cut out, where it is smaller the rest is gray at right and bottom. Objects stay of which at
    least 1/100 of a pixel is left.
    """
    limit = max(1, int(side * between(*factors)))
    size = Preprocess(short=limit, long=limit).target_size(*size_of(scene))
    scaled = resize(scene, *size)
    top, left = (whole_number(0, max(length - side, 0)) for length in size)
    return window(scaled, top=top, left=left, height=side, width=side, least_visible=0.0, least_side=LEAST_OF_JITTER)


def resized_crop(scene: Scene, shorts: tuple[int, ...], longest: int, sides: tuple[int, ...]) -> Scene:
    """Resize to a shorter side of ``shorts`` (the longer at most ``longest``) and cut out a random part (DETR).

    Height and width of the part are drawn from ``sides``, both at most the image's. Boxes are cut; whatever is left of
    an object counts, and a part without any is taken as it is.
    """
    limits = draw_size(Preprocess(short=min(shorts), long=longest), choices=shorts)
    scaled = resize(scene, *limits.target_size(*size_of(scene)))
    lengths = size_of(scaled)
    height, width = (whole_number(min(length, sides[0]), min(length, sides[1])) for length in lengths)
    top, left = (whole_number(0, length - part) for length, part in zip(lengths, (height, width), strict=True))
    return window(scaled, top=top, left=left, height=height, width=width, least_visible=0.0, least_side=0.0)


def min_iou_crop(scene: Scene) -> Scene:
    """Random crop that keeps a minimum IoU with an object (Liu et al. 2016, "SSD", section 2.2).

    The crop is drawn by torchvision's ``RandomIoUCrop`` among the objects. Objects stay whose center lies in the
    crop; crowd and ignore regions stay while any part of them does. Scenes without objects are not cropped.
    """
    objects = ~skipped(scene)
    if not objects.any() or min(size_of(scene)) < LEAST_CROP_SIDE:
        return scene
    shown = [scene["image"], boxes_on(plain_boxes(scene)[objects], scene["image"])]
    crop = v2.RandomIoUCrop().make_params(shown)
    if not crop:
        return scene
    top, left, height, width = (crop[key] for key in ("top", "left", "height", "width"))
    boxes = plain_boxes(scene)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 - torch.tensor([left, top])
    central = ((center > 0) & (center < torch.tensor([width, height]))).all(1)
    return window(select(scene, central | ~objects), top=top, left=left, height=height, width=width, least_visible=0.0)
