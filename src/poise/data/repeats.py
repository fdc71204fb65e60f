"""Repeat-factor sampling: images of rare classes are shown more often (Gupta et al. 2019, "LVIS", section 5.2)."""

from __future__ import annotations

import numpy as np

from poise.data.image_set import ImageSet


def images_of_classes(image_set: ImageSet) -> np.ndarray:
    """How many images show each class, (C,) int64; crowd and ignored objects do not count."""
    counts = np.zeros(len(image_set.categories), np.int64)
    np.add.at(counts, _pairs(image_set)[:, 1], 1)
    return counts


def repeat_factors(image_set: ImageSet, threshold: float) -> np.ndarray:
    """r of each image, (n,) float64 >= 1: the greatest of its classes' sqrt(threshold / share of images), or 1."""
    share = images_of_classes(image_set) / max(len(image_set), 1)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    factors = np.ones(len(image_set))
    pairs = _pairs(image_set)
    np.maximum.at(factors, pairs[:, 0], of_class[pairs[:, 1]])
    return factors


def repeated(image_set: ImageSet, threshold: float) -> ImageSet:
    """The set with each image as often as its factor, rounded up, as published for Co-DETR on LVIS.

    Copies are augmented each on its own, since they have positions of their own.
    """
    times = np.ceil(repeat_factors(image_set, threshold) - 1e-9).astype(np.int64)
    return image_set.subset(np.repeat(np.arange(len(image_set)), times))


def _pairs(image_set: ImageSet) -> np.ndarray:
    """(image, class) of every class that an image shows, each once."""
    objects = image_set.objects
    kept = ~(objects.crowd | objects.ignore)
    pairs = np.stack((image_set.image_of_object[kept], objects.labels[kept]), 1)
    return np.unique(pairs, axis=0).astype(np.int64).reshape(-1, 2)
