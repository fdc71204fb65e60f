"""An image with its objects, in the form that torchvision's transforms v2 understand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

Scene = dict[str, Any]
"""``image`` (3,H,W) uint8 RGB, ``boxes`` (n,4) xyxy pixels, ``labels`` (n,), ``iscrowd`` and ``ignore`` (n,) bool.

Image and boxes are ``tv_tensors``, so that any transform of torchvision may be applied to a scene.
"""

OF_OBJECTS = ("labels", "iscrowd", "ignore")  # what belongs to the objects beside their boxes
FILL = 114  # grey of places without an image, as in YOLOX


def make_scene(
    image: Tensor, boxes: Tensor, labels: Tensor, iscrowd: Tensor | None = None, ignore: Tensor | None = None
) -> Scene:
    """A scene of plain tensors; flags that are not given are false."""
    none = torch.zeros(len(labels), dtype=torch.bool)
    return {
        "image": tv_tensors.Image(image),
        "boxes": boxes_on(boxes.reshape(-1, 4).float(), image),
        "labels": labels.long(),
        "iscrowd": none if iscrowd is None else iscrowd.bool(),
        "ignore": none.clone() if ignore is None else ignore.bool(),
    }


def boxes_on(boxes: Tensor, image: Tensor) -> tv_tensors.BoundingBoxes:
    """Plain xyxy boxes as boxes of this image."""
    height, width = image.shape[-2:]
    return tv_tensors.BoundingBoxes(boxes.as_subclass(Tensor), format="XYXY", canvas_size=(height, width))


def size_of(scene: Scene) -> tuple[int, int]:
    """Height and width of the image."""
    height, width = scene["image"].shape[-2:]
    return int(height), int(width)


def plain_boxes(scene: Scene) -> Tensor:
    """The boxes (n,4) as an ordinary tensor."""
    return scene["boxes"].as_subclass(Tensor)


def skipped(scene: Scene) -> Tensor:
    """Which boxes are regions to leave alone (crowd or ignore) instead of objects to find, (n,) bool."""
    return scene["iscrowd"] | scene["ignore"]


def with_objects(image: Tensor, *parts: tuple[Scene, Tensor]) -> Scene:
    """A new image with the objects of several scenes, each given with its boxes on the new image."""
    joined = {name: torch.cat([scene[name] for scene, _ in parts]) for name in OF_OBJECTS}
    boxes = torch.cat([boxes.as_subclass(Tensor) for _, boxes in parts])
    return {"image": tv_tensors.Image(image), "boxes": boxes_on(boxes, image), **joined}


def select(scene: Scene, keep: Tensor) -> Scene:
    """Only the objects where ``keep`` (n,) is true."""
    chosen = {name: scene[name][keep] for name in OF_OBJECTS}
    return {**scene, "boxes": boxes_on(plain_boxes(scene)[keep], scene["image"]), **chosen}


def clip_objects(scene: Scene, least_visible: float = 0.1) -> Scene:
    """Clip boxes to the image and remove what a cut has left without substance.

    An object goes if less than 1 pixel of its width or height remains (a box that was smaller before may keep
    what it had), or less than ``least_visible`` of its area. A crowd or ignore region stays while any of it
    is inside: it says where not to look for errors, however little is left of it.
    """
    boxes = plain_boxes(scene)
    height, width = size_of(scene)
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    before, after = _sides(boxes), _sides(clipped)
    whole = (after >= before.clamp(max=1) - 1e-4).all(1)
    seen = after.prod(1) >= least_visible * before.prod(1)
    inside = (after > 0).all(1)
    keep = inside & (skipped(scene) | (whole & seen))
    return select({**scene, "boxes": boxes_on(clipped, scene["image"])}, keep)


def _sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]
