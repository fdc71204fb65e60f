"""An image with its objects, in the form that torchvision's transforms v2 understand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

Scene = dict[str, Any]
"""``image`` (3,H,W) uint8 RGB, ``boxes`` (n,4) xyxy pixels, ``labels`` (n,), ``iscrowd`` and ``ignore`` (n,) bool.

Where the data set has proposals, they are among the boxes and ``proposal`` (n,) bool tells which: regions that go
through every transform with the image, but are never objects.

Image and boxes are ``tv_tensors``, so that any transform of torchvision may be applied to a scene.
"""

OF_OBJECTS = ("labels", "iscrowd", "ignore", "proposal")  # what belongs to the boxes, where a scene has it
FILL = 114  # gray of areas without an image, as in YOLOX


def make_scene(
    image: Tensor, boxes: Tensor, labels: Tensor, iscrowd: Tensor | None = None, *, ignore: Tensor | None = None
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


def with_proposals(scene: Scene, proposals: Tensor) -> Scene:
    """The scene with (k,4) proposals after its boxes."""
    count, flags = len(scene["labels"]), torch.ones(len(proposals), dtype=torch.bool)
    none = {name: torch.cat((scene[name], torch.zeros_like(flags))) for name in ("iscrowd", "ignore")}
    return {
        **scene,
        **none,
        "boxes": boxes_on(torch.cat((plain_boxes(scene), proposals.reshape(-1, 4).float())), scene["image"]),
        "labels": torch.cat((scene["labels"], torch.zeros_like(flags, dtype=torch.int64))),
        "proposal": torch.cat((torch.zeros(count, dtype=torch.bool), flags)),
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
    boxes: Tensor = scene["boxes"].as_subclass(Tensor)
    return boxes


def skipped(scene: Scene) -> Tensor:
    """Which boxes are regions (crowd, ignore, proposals) instead of objects to find, (n,) bool."""
    regions: Tensor = scene["iscrowd"] | scene["ignore"]
    return regions.logical_or(scene["proposal"]) if "proposal" in scene else regions


def without_proposals(scene: Scene) -> Scene:
    """The objects and the regions to ignore alone; still a scene that could hold proposals."""
    return select(scene, ~scene["proposal"]) if "proposal" in scene else scene


def with_objects(image: Tensor, *parts: tuple[Scene, Tensor]) -> Scene:
    """A new image with the objects of several scenes, each given with its boxes on the new image."""
    names = [name for name in OF_OBJECTS if name in parts[0][0]]
    concatenated = {name: torch.cat([scene[name] for scene, _ in parts]) for name in names}
    boxes = torch.cat([boxes.as_subclass(Tensor) for _, boxes in parts])
    return {"image": tv_tensors.Image(image), "boxes": boxes_on(boxes, image), **concatenated}


def select(scene: Scene, keep: Tensor) -> Scene:
    """Only the objects where ``keep`` (n,) is true."""
    chosen = {name: scene[name][keep] for name in OF_OBJECTS if name in scene}
    return {**scene, "boxes": boxes_on(plain_boxes(scene)[keep], scene["image"]), **chosen}


def clip_objects(scene: Scene, least_visible: float = 0.1, least_side: float = 1.0) -> Scene:
    """Clip boxes to the image and remove what a cut has left without substance.

    An object goes if less than ``least_side`` pixels of its width or height remain (a box that was smaller before may
    keep what it had), or less than ``least_visible`` of its area. A crowd or ignore region stays while any of it
    is inside: it says where not to look for errors, however little is left of it. So does a proposal.
    """
    boxes = plain_boxes(scene)
    height, width = size_of(scene)
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    before, after = _sides(boxes), _sides(clipped)
    whole = (after >= before.clamp(max=least_side) - 1e-4).all(1)
    seen = after.prod(1) >= least_visible * before.prod(1)
    inside = (after > 0).all(1)
    keep = inside & (skipped(scene) | (whole & seen))
    return select({**scene, "boxes": boxes_on(clipped, scene["image"])}, keep)


def _sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]
