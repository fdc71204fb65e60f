"""The share of images without objects, chosen deterministically and without a file."""

from __future__ import annotations

import hashlib

import numpy as np

from poise.data.image_set import ImageSet


def limit_background(image_set: ImageSet, share: float) -> ImageSet:
    """Leave out images without objects so that they are at most a fraction of all images.

    Those with the smallest SHA-256 of their file name are kept, independent of seed and order.

    Args:
        share: largest fraction of images without objects, in [0,1].
    """
    empty = np.flatnonzero(image_set.objects_per_image == 0).tolist()
    others = len(image_set) - len(empty)
    allowed = len(empty) if share >= 1 else int(share * others / (1 - share) + 1e-9)
    digests = {i: hashlib.sha256(image_set.path(i).name.encode()).digest() for i in empty}
    left_out = set(sorted(empty, key=lambda i: (digests[i], i))[allowed:])
    return image_set.subset([i for i in range(len(image_set)) if i not in left_out]) if left_out else image_set
