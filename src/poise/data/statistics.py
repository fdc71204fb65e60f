"""What a split holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poise.data.image_set import ImageSet

SMALL, MEDIUM = 32.0**2, 96.0**2  # pixels: COCO's limits of small, medium and large areas


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split; crowd and ignored objects are counted apart from the others."""

    images: int
    objects: int  # without crowd and ignored ones
    crowd: int
    ignored: int
    images_without_objects: int
    mean_objects_per_image: float
    most_objects_per_image: int
    small: int  # objects with an area below 32 x 32 pixels
    medium: int  # below 96 x 96
    large: int
    classes: dict[str, int]  # objects of each class; equal names are followed by their category id
    read_as: tuple[str, ...] = ()  # how the files were read


def count(image_set: ImageSet) -> SplitStatistics:
    """Statistics of ``image_set``."""
    objects = image_set.objects
    real = ~(objects.crowd | objects.ignore)
    areas = objects.areas[real]
    per_image = np.bincount(image_set.image_of_object[real], minlength=len(image_set))
    return SplitStatistics(
        images=len(image_set),
        objects=int(real.sum()),
        crowd=int(objects.crowd.sum()),
        ignored=int(objects.ignore.sum()),
        images_without_objects=int((per_image == 0).sum()),
        mean_objects_per_image=float(per_image.mean()) if len(per_image) else 0.0,
        most_objects_per_image=int(per_image.max(initial=0)),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < MEDIUM)).sum()),
        large=int((areas >= MEDIUM).sum()),
        classes=dict(zip(class_keys(image_set), objects_per_class(image_set).tolist(), strict=True)),
        read_as=image_set.read_as,
    )


def objects_per_class(image_set: ImageSet) -> np.ndarray:
    """Number of objects of each class (C,), without crowd and ignored ones."""
    objects = image_set.objects
    return np.bincount(objects.labels[~(objects.crowd | objects.ignore)], minlength=len(image_set.class_names))


def class_keys(image_set: ImageSet) -> list[str]:
    """Class names; with the id where the name occurs before."""
    seen: set[str] = set()
    keys = []
    for category in image_set.categories:
        keys.append(f"{category.name} (id {category.id})" if category.name in seen else category.name)
        seen.add(category.name)
    return keys
