"""A model on images of any sizes: batches, tiles, original pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.inference.sources import Frame
from poise.inference.tiles import ImageDetections, Tiling, detect_tiled
from poise.inference.views import TestTimeAugmentation, detect_views
from poise.preprocess import batches_by_shape, to_original

Item = TypeVar("Item")


def detect_frames(
    model: DetectionModel,
    frames: Iterable[Frame],
    *,
    batch_size: int = 8,
    score_threshold: float = 0.3,
    tiling: Tiling | None = None,
    augmentation: TestTimeAugmentation | None = None,
) -> Iterator[tuple[Frame, ImageDetections]]:
    """Each frame with its detections in its own pixels, best first, on the CPU.

    Frames are taken ``batch_size`` at a time, so an endless stream can be followed. With ``tiling`` the tiles of an
    image make the batches; with ``augmentation`` every image is looked at in several views.
    """
    if tiling is not None and augmentation is not None:
        raise ValueError("tiles and test-time augmentation exclude each other: give tile or tta")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold={score_threshold} must lie in [0, 1]")
    for group in chunks(frames, 1 if tiling else batch_size):
        images = [frame.image for frame in group]
        if tiling is None:
            found = detect_images(model, images, augmentation=augmentation)
        else:
            found = [_tiled(model, image, tiling, batch_size) for image in images]
        for frame, one in zip(group, found, strict=True):
            yield frame, _confident(one, score_threshold)


def detect_images(
    model: DetectionModel,
    images: Sequence[Tensor],
    native: bool = False,
    augmentation: TestTimeAugmentation | None = None,
) -> list[ImageDetections]:
    """Detections of images (3,H_i,W_i), of each those that it has alone; images of one input shape make a batch.

    Args:
        native: images keep their size instead of being brought to the model's own.
        augmentation: look at several views and merge what is found.
    """
    wanted = [model.preprocess] if augmentation is None else augmentation.sizes(model.preprocess)
    shapes = [
        tuple((one.padded_size if native else one.input_size)(*image.shape[-2:]) for one in wanted) for image in images
    ]
    device, found = next(model.parameters()).device, dict[int, ImageDetections]()
    for group in batches_by_shape(shapes, len(images)):
        same = [images[i].to(device) for i in group]
        prepared = [
            one.batch([one.normalize(image if native else one.resize(image)) for image in same]) for one in wanted
        ]
        found.update(zip(group, _detect_batch(model, same, prepared, augmentation), strict=True))
    return [found[i] for i in range(len(images))]


@torch.inference_mode()
def _detect_batch(
    model: DetectionModel,
    images: Sequence[Tensor],
    views: Sequence[tuple[Tensor, Tensor]],
    augmentation: TestTimeAugmentation | None,
) -> list[ImageDetections]:
    """Detections in pixels of the images; ``views`` are pixels and sizes as the network takes them."""
    pixels, sizes = views[0]
    if augmentation is None:
        detections = model.network.predict(pixels, sizes)
    else:
        detections = detect_views(model.network, views, augmentation)
    return [
        (to_original(one["boxes"].cpu(), size.cpu(), *image.shape[-2:]), one["scores"].cpu(), one["labels"].cpu())
        for one, size, image in zip(detections.unpad(), sizes, images, strict=True)
    ]


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _tiled(model: DetectionModel, image: Tensor, tiling: Tiling, batch_size: int) -> ImageDetections:
    return detect_tiled(
        image,
        tiling,
        whole=lambda whole: detect_images(model, [whole])[0],
        tiles=lambda tiles: [
            found for chunk in chunks(tiles, batch_size) for found in detect_images(model, chunk, native=True)
        ],
    )


def _confident(found: ImageDetections, threshold: float) -> ImageDetections:
    keep = found[1] >= threshold
    return found[0][keep], found[1][keep], found[2][keep]
