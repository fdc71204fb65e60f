"""The contract of data set formats."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from poise.data import ImageSet, open_data, read_image, splits
from poise.testing.checks import run_checks


@dataclass(frozen=True)
class Case:
    """A small data set in the format, and the name that the format must have; empty: any."""

    path: Path
    name: str = ""

    def image_sets(self) -> list[ImageSet]:
        """Open all splits."""
        return [open_data(self.path, split) for split in splits(self.path)]


def check_dataset_format(path: str | Path, name: str = "") -> None:
    """Check that a data set is read as training needs it.

    Args:
        path: a small data set in the format, without faults; every image is decoded.
        name: of the format, if it must not be read by another one.

    Raises:
        BrokenContract: a promise is broken; the message says which.
    """
    run_checks(f"data set format of {path}", CHECKS, Case(Path(path), name))


def splits_are_found(case: Case) -> None:
    """The data set has at least one split with an image and an object, in this format."""
    image_sets = case.image_sets()
    assert image_sets and any(len(one) for one in image_sets) and any(one.num_objects for one in image_sets)
    for image_set in image_sets:
        assert not case.name or image_set.format == case.name, f"it was read as {image_set.format}"


def nothing_is_faulty(case: Case) -> None:
    """No record is left out when faulty ones are skipped."""
    for split in splits(case.path):
        skipped = open_data(case.path, split, "skip").skipped
        assert not skipped, str(skipped[0])


def images_have_the_stated_sizes(case: Case) -> None:
    """Every image can be read and has the stated width and height."""
    for image_set in case.image_sets():
        for record in image_set:
            height, width = read_image(record.path).shape[1:]
            assert (record.width, record.height) == (width, height), f"{record.path}: {width} x {height}"


def boxes_lie_in_their_images(case: Case) -> None:
    """Boxes are xyxy pixels with an area, and overlap their image."""
    for image_set in case.image_sets():
        for record in image_set:
            boxes = record.boxes
            assert boxes.dtype == np.float32 and np.isfinite(boxes).all(), str(record.path)
            assert (boxes[:, 2:] > boxes[:, :2]).all(), f"{record.path}: a box without an area"
            inside = (boxes[:, 0] < record.width) & (boxes[:, 1] < record.height) & (boxes[:, 2:] > 0).all(1)
            assert inside.all(), f"{record.path}: box {boxes[~inside][0].tolist()} outside of the image"


def labels_are_those_of_the_classes(case: Case) -> None:
    """Labels count from 0, and all splits have the same classes in the same order."""
    image_sets = case.image_sets()
    for image_set in image_sets:
        assert image_set.class_names == image_sets[0].class_names
        assert len(set(image_set.class_names)) == len(image_set.class_names) > 0
        labels = image_set.objects.labels
        assert not len(labels) or 0 <= int(labels.min()) <= int(labels.max()) < len(image_set.class_names)


def images_occur_once(case: Case) -> None:
    """No image occurs twice in a split, and no image id."""
    for image_set in case.image_sets():
        paths = [record.path for record in image_set]
        assert len(set(paths)) == len(paths)
        assert len(set(image_set.image_ids())) == len(paths)


def reading_again_gives_the_same(case: Case) -> None:
    """Reading twice gives the same records in the same order."""
    for first, second in zip(case.image_sets(), case.image_sets(), strict=True):
        assert [record.path for record in first] == [record.path for record in second]
        for field in fields(first.objects):
            assert np.array_equal(getattr(first.objects, field.name), getattr(second.objects, field.name))


CHECKS = (
    splits_are_found,
    nothing_is_faulty,
    images_have_the_stated_sizes,
    boxes_lie_in_their_images,
    labels_are_those_of_the_classes,
    images_occur_once,
    reading_again_gives_the_same,
)
