"""The share of images without objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poise.data.background import limit_background
from poise.data.columns import Strings
from poise.data.image_set import Category, ImageColumns, ImageSet, ObjectColumns
from poise.recipes import DataSettings


def images(objects: list[int]) -> ImageSet:
    count, total = len(objects), sum(objects)
    names = Strings.of([f"{i}.jpg" for i in range(count)])
    columns = ImageColumns(np.arange(count), names, np.full(count, 10), np.full(count, 10))
    flags = np.zeros(total, bool)
    boxes = np.tile([0.0, 0, 5, 5], (total, 1))
    parts = ObjectColumns(boxes, np.zeros(total, np.int64), flags, flags, np.full(total, 25.0), np.arange(total))
    offsets = np.concatenate(([0], np.cumsum(objects))).astype(np.int64)
    return ImageSet("train", Path("/data"), "coco", (Category(1, "a"),), columns, parts, offsets)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 6), (0.75, 6), (0.5, 2), (0.34, 1), (0.1, 0), (0.0, 0)])
def test_at_most_the_share_is_kept(share: float, expected: int) -> None:
    given = images([0, 1, 0, 0, 2, 0, 0, 0])
    kept = limit_background(given, share)
    empty = int((kept.objects_per_image == 0).sum())
    assert (empty, len(kept) - empty) == (expected, 2)
    assert empty <= share * len(kept) + 1e-9
    order = [str(kept.path(i)) for i in range(len(kept))]
    assert order == [str(given.path(i)) for i in range(len(given)) if str(given.path(i)) in order]


def test_the_choice_does_not_depend_on_the_order_of_the_images() -> None:
    given = images([0, 1, 0, 0, 2, 0, 0, 0])
    turned = given.subset(range(len(given) - 1, -1, -1))
    a, b = (
        {str(one.path(i)) for i in range(len(one))}
        for one in (limit_background(given, 0.5), limit_background(turned, 0.5))
    )
    assert a == b
    with pytest.raises(ValueError, match=r"background_share=2.*\[0, 1\]"):
        DataSettings(background_share=2.0)
