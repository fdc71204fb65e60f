"""Repeat-factor sampling against its formula, image by image."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from poise.data import ImageSet, open_data
from poise.data.repeats import images_of_classes, repeat_factors, repeated

SHOWN = [[0], [0, 1], [0], [0, 0], [0], [2, 0], [], [0], [0], [0]]  # classes of the objects of each image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "train").mkdir()
    records, annotations = [], []
    for i, classes in enumerate(SHOWN):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / "train" / f"{i}.png")
        records.append({"id": i, "file_name": f"{i}.png", "width": 8, "height": 8})
        for c in classes:
            box = {"bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": c + 1, **box})
    annotations.append({**annotations[1], "id": 99, "image_id": 6, "category_id": 3, "iscrowd": 1})  # no object
    categories = [{"id": c + 1, "name": name} for c, name in enumerate("abc")]
    text = json.dumps({"images": records, "annotations": annotations, "categories": categories})
    (folder / "train" / "_annotations.coco.json").write_text(text)
    return open_data(folder, "train")


def test_factors_are_the_formula(images: ImageSet) -> None:
    assert images_of_classes(images).tolist() == [9, 1, 1]
    share = [sum(c in classes for classes in SHOWN) / len(SHOWN) for c in range(3)]
    wanted = [max([max(1.0, math.sqrt(0.35 / share[c])) for c in set(classes)], default=1.0) for classes in SHOWN]
    assert repeat_factors(images, 0.35) == pytest.approx(wanted)


def test_images_come_as_often_as_their_factor_rounded_up(images: ImageSet) -> None:
    shown = repeated(images, 0.35)
    assert shown.image_ids() == [0, 1, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    assert [record.labels.tolist() for record in shown][6:8] == [[2, 0], [2, 0]]
    assert repeated(images, 0.05).image_ids() == list(range(10))
    assert repeated(images, 0.4).image_ids().count(5) == 2  # a factor of exactly 2 is not rounded up
