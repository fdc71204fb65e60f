"""What ``open_data``, the start of a training and an evaluation read of a data set: the same objects everywhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from poise import Detector
from poise.data import ImageSet, check_data, open_data
from poise.engine.sources import open_sets
from poise.models import create_model
from poise.recipes import DataSettings

Objects = dict[str, list[tuple[str, tuple[float, ...]]]]  # of each image file: (class name, x1, y1, x2, y2)


def objects_of(images: ImageSet) -> Objects:
    """Class and box (rounded to 0.01 pixels) of every object, by the image's path relative to the root."""
    return {
        images.images.files[i]: [
            (images.class_names[label], tuple(round(value, 2) for value in box))
            for label, box in zip(record.labels.tolist(), record.boxes.tolist(), strict=True)
        ]
        for i, record in enumerate(images)
    }


def read_everywhere(path: Path, split: str = "train", **settings: str) -> Objects:
    """Objects of a split, after asserting that opening, checking, training and evaluating see the same."""
    images = open_data(path, split)
    expected = objects_of(images)
    report = check_data(path)
    assert report.exit_code == 0, report.findings
    assert report.splits[images.name].objects + report.splits[images.name].crowd == images.num_objects
    train_set, _, _ = open_sets(DataSettings(path=str(path), train=split, val="none", **settings))
    assert {file: sorted(boxes) for file, boxes in objects_of(train_set).items()}.items() <= {
        file: sorted(boxes) for file, boxes in expected.items()
    }.items()
    assert _evaluated(path, split, images) == {file: sorted(boxes) for file, boxes in expected.items()}
    return expected


@lru_cache
def tiny_detector() -> Detector:
    """A model of which only the preprocessing is used."""
    return Detector(create_model("atss_r18_fpn", 2, image_size=32, backbone="test_byobnet", channels=8, depth=1))


def _evaluated(path: Path, split: str, images: ImageSet) -> Objects:
    """Objects of the evaluation's batches in pixels of the files."""
    found: Objects = {}
    _, loader = tiny_detector().batches(path, split)
    for batch in loader:
        for i, index in enumerate(batch.indices.tolist()):
            record, valid = images[index], batch.truth.valid[i]
            scale = np.array([record.width, record.height] * 2) / batch.truth.sizes[i].flip(0).repeat(2).numpy()
            boxes = np.round(batch.truth.boxes[i][valid].numpy() * scale, 1).tolist()
            names = [images.class_names[label] for label in batch.truth.labels[i][valid].tolist()]
            found[images.images.files[index]] = sorted(zip(names, map(tuple, boxes), strict=True))
    assert len(found) == len(images)
    exact = objects_of(images)
    for file, pairs in found.items():  # resized and back: equal up to rounding
        assert len(pairs) == len(exact[file])
        for (name, box), (expected_name, expected) in zip(pairs, sorted(exact[file]), strict=True):
            assert name == expected_name and np.allclose(box, expected, atol=0.2)
    return {file: sorted(exact[file]) for file in found}
