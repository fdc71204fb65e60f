"""Records that did not come through poise's readers: faults are named before a step is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.colored import FileRecord, write_records

from poise.data import DataError, train_loader
from poise.data.dataset import ImageRecordLike
from poise.preprocess import Preprocess
from poise.recipes import AugmentSettings


class Named(list[FileRecord]):
    """Records that also say which classes there are."""

    class_names = ("a", "b", "c", "d", "e")


def spoil(record: FileRecord, box: list[float] | None = None, label: int | None = None) -> ImageRecordLike:
    """The record with another box or label for its second object."""
    boxes, labels = record.boxes.copy(), record.labels.copy()
    boxes[1] = boxes[1] if box is None else box
    labels[1] = labels[1] if label is None else label
    return replace(record, boxes=boxes, labels=labels)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"box": [1, 2, np.nan, 8]}, "a box that is not finite"),
        ({"box": [1, 2, np.inf, 8]}, "a box that is not finite"),
        ({"box": [9, 2, 3, 8]}, "a box with x2 <= x1"),
        ({"box": [1, 8, 3, 8]}, "a box with x2 <= x1 or y2 <= y1"),
        ({"label": -1}, "a label outside"),
        ({"label": 5}, r"a label outside \[0, 5\)"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_file_and_object_are_named(tmp_path: Path, fault: dict[str, Any], words: str, workers: int) -> None:
    records = Named(write_records(tmp_path, [2, 3, 2, 2]))
    records[2] = spoil(records[2], **fault)  # type: ignore[call-overload]
    settings = {"batch_size": 4, "workers": workers, "on_bad_image": "skip"}
    loader = train_loader(records, AugmentSettings(), Preprocess().with_size(64), **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"002\.png: object 1 has {words}.*correct or remove it"):
        list(loader.epoch(0))


def test_sound_records_pass(tmp_path: Path) -> None:
    records = Named(write_records(tmp_path, [2, 0, 5]))
    loader = train_loader(records, AugmentSettings(), Preprocess().with_size(64), batch_size=3)
    assert int(next(iter(loader.epoch(0))).truth.crowd.sum()) == 3
