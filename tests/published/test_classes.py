"""Layers that depend on the classes, remapped by the names of the classes."""

from __future__ import annotations

import pytest
import torch

from poise.models import create_model
from poise.published import load_published
from poise.published.classes import class_rows, remap_rows
from poise.published.coco import NAMES as COCO
from poise.published.objects365 import NAMES as OBJECTS365


def test_names_are_found_in_other_spellings() -> None:
    assert class_rows(
        ["TV", "hair drier", "Hot-Dog", "unicorn"], ["hot dog", "Monitor/TV", "Hair Dryer/Hair drier"]
    ) == [
        1,
        2,
        0,
        -1,
    ]
    rows = class_rows(COCO, OBJECTS365)
    assert len(OBJECTS365) == len(set(OBJECTS365)) == 365
    assert [name for name, row in zip(COCO, rows, strict=True) if row < 0] == ["sports ball"]
    assert OBJECTS365[rows[COCO.index("person")]] == "person" and len(set(rows)) == 80


def test_rows_of_anchors_offsets_and_a_background() -> None:
    rows = [2, -1]  # two own classes, the first is the third of three
    anchors = remap_rows(torch.zeros(6), torch.arange(1.0, 10), rows, 3)  # three anchors of all classes
    assert anchors is not None and anchors.tolist() == [3, 0, 6, 0, 9, 0]
    offsets = remap_rows(torch.zeros(8), torch.arange(1.0, 13), rows, 3, class_major=True)  # four of each class
    assert offsets is not None and offsets.tolist() == [9, 10, 11, 12, 0, 0, 0, 0]
    region = remap_rows(torch.zeros(3, 2), torch.arange(1.0, 9).reshape(4, 2), rows, 3)  # background last
    assert region is not None and region.tolist() == [[5, 6], [0, 0], [7, 8]]
    assert remap_rows(torch.zeros(2), torch.zeros(7), rows, 3) is None


@pytest.mark.parametrize("name", ["co_dino_5scale_r18"])
def test_fine_tuning_from_another_data_set_keeps_the_classes_of_the_same_name(name: str) -> None:
    from poise.published.keys import rules_of, translate

    own_names = ("person", "unicorn", "motorcycle")
    options = {"backbone": "resnet18", "channels": 16, "attention_heads": 2, "hidden": 16, "queries": 9}
    options |= {"encoder_layers": 1, "decoder_layers": 1}
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options)
    model.set_classes(own_names)
    rules = rules_of(name)
    assert rules is not None
    key = next(
        key
        for key in ("query_head.cls_branches.0.weight", "bbox_head.cls_branches.0.weight")
        if translate(key, rules)[1] is not None
    )
    own = translate(key, rules)[1]
    assert own is not None
    before = model.network.state_dict()[own].clone()
    value = torch.randn(365, 16)
    report = load_published(model, {key: value}, remap_classes=True)
    after = model.network.state_dict()[own]
    rows = [OBJECTS365.index("person"), OBJECTS365.index("motorcycle")]
    assert after[[0, 2]].equal(value[rows]) and after[1].equal(before[1])
    assert (
        report.remapped == (own,) and report.remapped_classes == ("person", "motorcycle") and not report.reinitialized
    )
    other = load_published(model, {key: torch.zeros(2, 16)}, True, source_classes=["unicorn", "zebra"])
    assert other.remapped_classes == ("unicorn",) and model.network.state_dict()[own][1].eq(0).all()
