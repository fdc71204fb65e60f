"""The split that a command uses, and images held out for validation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.write_data import coco_content, write_coco, write_yolo

from poise.data import DataError, SplitChoice, choose_split, open_data, open_for_evaluation
from poise.data.demo import write_demo_data
from poise.data.hold_out import hold_out
from poise.engine.sources import open_sets
from poise.engine.validation import write_record
from poise.recipes import DataSettings, Recipe, with_settings


def test_the_split_of_a_command(tmp_path: Path) -> None:
    """val, else test, else the only split, which the note then names; the message names the option."""
    write_coco(tmp_path)
    assert choose_split(tmp_path) == SplitChoice("train", "no split 'val' or 'test': using the only split 'train'")
    write_coco(tmp_path, split="test")
    assert choose_split(tmp_path) == SplitChoice("test", "no split 'val': using 'test'")
    assert choose_split(tmp_path, preferred=("train", "val")) == SplitChoice("train")
    write_coco(tmp_path, split="val")
    assert choose_split(tmp_path) == SplitChoice("val") and choose_split(tmp_path, "test") == SplitChoice("test")
    with pytest.raises(DataError, match="no split 'nothing'; it has train, val, test"):
        choose_split(tmp_path, "nothing")
    with pytest.raises(DataError, match="several splits.*--split NAME"):
        choose_split(tmp_path, preferred=("other",))


def test_held_out_images_are_the_same_whatever_their_order(tmp_path: Path) -> None:
    write_demo_data(tmp_path, train=12, val=1, size=64)
    images = open_data(tmp_path, "train")
    train, val = hold_out(images, 0.25)
    names = [{one[i].path.name for i in range(len(one))} for one in (train, val)]
    assert len(val) == 3 and not names[0] & names[1] and len(names[0] | names[1]) == 12
    assert train.num_objects + val.num_objects == images.num_objects
    again = hold_out(images.subset(range(11, -1, -1)), 0.25)[1]
    assert {again[i].path.name for i in range(3)} == names[1]
    expected = sorted(names[0] | names[1], key=lambda name: hashlib.sha256(name.encode()).digest())[:3]
    assert names[1] == set(expected)
    assert len(hold_out(images, 0.01)[1]) == 1
    with pytest.raises(ValueError, match="none can be held out"):
        hold_out(images.subset([0]), 0.5)


def test_training_with_held_out_images(tmp_path: Path) -> None:
    write_coco(tmp_path)
    train, val, remarks = open_sets(DataSettings(str(tmp_path), val_share=0.5))
    assert (len(train), len(val), val.name) == (1, 1, "val") and "1 of the images of split 'train'" in remarks[0]
    write_coco(tmp_path, split="val")
    with pytest.raises(ValueError, match="for data without a validation split, but the validation split is 'val'"):
        open_sets(DataSettings(str(tmp_path), val_share=0.25))
    with pytest.raises(ValueError, match="val_share=0.9"):
        DataSettings(val_share=0.9)


def test_an_evaluation_takes_the_images_that_the_training_held_out(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data", coco_content(6))
    _, val, _ = open_sets(DataSettings(str(data), val_share=0.34))
    run = tmp_path / "run"
    run.mkdir()
    assert val is not None and len(val) == 2
    (run / "val_images.txt").write_text("".join(f"{val[i].path.name}\n" for i in range(2)))
    images, note = open_for_evaluation(data, run=run)
    assert images.image_ids() == val.image_ids() and "the 2 images of split 'train' that the training held out" in note
    whole, note = open_for_evaluation(data, "train", run)
    assert len(whole) == 6 and not note
    assert len(open_for_evaluation(data)[0]) == 6
    other = write_yolo(tmp_path / "other", {"a": None, "b": "0 0.5 0.5 0.2 0.2"})
    images, note = open_for_evaluation(other, run=run)
    assert len(images) == 2 and note == choose_split(other).note, "other data is evaluated as a whole"


def test_the_run_folder_lists_the_held_out_images(tmp_path: Path) -> None:
    train, val, _ = open_sets(DataSettings(str(write_coco(tmp_path)), val_share=0.5))
    processes: Any = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    recipe = with_settings(Recipe(), {"data.path": str(tmp_path), "data.val_share": 0.5})
    write_record(tmp_path, recipe, processes, train, val_set=val)
    assert val is not None and (tmp_path / "val_images.txt").read_text() == f"{val[0].path.name}\n"
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["train"] == {"split": "train", "images": 1} and record["val"] == {"split": "val", "images": 1}
    (tmp_path / "run.json").write_text(json.dumps({**record, "started": "yesterday"}))
    write_record(tmp_path, recipe, processes, train, val_set=val)
    assert json.loads((tmp_path / "run.json").read_text())["started"] == "yesterday"  # of a resumed run
