"""Hold out images of a training split for validation, deterministically and without a file."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from poise.data.image_set import ImageSet


def hold_out(image_set: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Split a data set by image into training and validation images.

    The images with the smallest SHA-256 of their file name are held out. So the choice does not depend on a seed, on
    the order of the images or on the folder, and changes little when images are added.

    Args:
        share: fraction of the images that are held out, in (0, 1); rounded, at least one image.

    Raises:
        ValueError: fewer than two images.
    """
    count = len(image_set)
    if count < 2:
        raise ValueError(f"split {image_set.name!r} has {count} image(s): none can be held out for validation")
    digests = [hashlib.sha256(image_set[i].path.name.encode()).digest() for i in range(count)]
    order = sorted(range(count), key=lambda i: (digests[i], i))
    number = min(max(1, round(share * count)), count - 1)
    held = set(order[:number])
    train = image_set.subset([i for i in range(count) if i not in held])
    return train, replace(image_set.subset(sorted(held)), name="val", skipped=())
