"""Parsing of COCO JSON: rows that are taken at once equal rows taken one by one, with polygons parsed or left out."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.data import DataError, coco_json
from poise.data.assemble import _of_equal_hash
from poise.data.coco_json import Annotations, parse, parse_text

PLAIN: dict[str, Any] = {"area": 6.5, "iscrowd": 0, "image_id": 3, "bbox": [1, 2.5, 3, 4], "category_id": 7}
ODD: list[dict[str, Any]] = [
    {"image_id": "a"},
    {"id": "x-1"},
    {"id": "12"},
    {"iscrowd": "1"},
    {"iscrowd": 2},
    {"ignore": 1},
    {"area": None},
    {"area": "5"},
    {"bbox": [1, 2, 3]},
    {"bbox": None},
    {"bbox": None, "segmentation": [[0, 0, 5, 0, 5, 4]]},
    {"bbox": ["1", 2, 3, 4]},
    {"category_id": 2**70},
    {"category_id": True},
]


def content(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": [], "categories": [], "annotations": rows}


def mixed(odd: int) -> list[dict[str, Any]]:
    draw = random.Random(odd)
    rows = [PLAIN | {"id": i, "segmentation": [[i, 2.25, 3, 4, -5.5, 6], [1, 2, 3, 4, 5, 6]]} for i in range(1, 200)]
    for change in draw.sample(ODD, odd):
        row = draw.randrange(len(rows))
        rows[row] = rows[row] | change
    return rows


def columns(annotations: Annotations) -> dict[str, Any]:
    left_out = ("polygons_left_out", "areas")
    found: dict[str, Any] = {
        f.name: getattr(annotations, f.name) for f in fields(annotations) if f.name not in left_out
    }
    return found | {"areas": [None if np.isnan(area) else area for area in annotations.areas]}


@pytest.mark.parametrize("odd", [0, 1, 4, len(ODD)])
def test_rows_at_once_equal_rows_one_by_one(odd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content(mixed(odd))))
    monkeypatch.setattr(coco_json, "BLOCK", 1000)  # polygons across two blocks are among them
    quick = columns(parse(file)[1])
    monkeypatch.setattr(Annotations, "_add_plain", lambda self: False)
    monkeypatch.setattr(coco_json, "_without_polygons", lambda file: None)
    literal = columns(parse(file)[1])
    assert quick == literal
    assert len(quick["ids"]) + len(quick["malformed"]) == 199


def test_polygons_are_not_parsed_where_nothing_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "a.json", []
    original = Annotations.take
    monkeypatch.setattr(
        Annotations, "take", lambda self, row: seen.append(row.get("segmentation")) or original(self, row)
    )
    file.write_text(json.dumps(content(mixed(0))))
    parse(file)
    assert seen.count(True) == 199
    file.write_text(json.dumps(content([PLAIN | {"segmentation": [[1, 2, 3, 4, 5, 6]], "bbox": []}])))
    assert parse(file)[1].boxes.tolist() == [1, 2, 4, 4]


@pytest.mark.parametrize(
    "wrong", ["[[1, 2, 03]]", "[[1.2.3, 2]]", "[[1, 2,, 3]]", "[[1, 2], [3]", "[[.5, 2]]", "[[1, 2.]]"]
)
def test_a_wrong_number_among_polygons_is_named_by_its_position(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    sound = json.dumps(content(mixed(0)))
    text = sound.replace("[[100, 2.25, 3, 4, -5.5, 6], [1, 2, 3, 4, 5, 6]]", wrong)
    assert text != sound
    file.write_text(text)
    with pytest.raises(json.JSONDecodeError) as stated:
        json.loads(text)
    with pytest.raises(DataError, match="is not valid JSON") as found:
        parse(file)
    assert str(stated.value) in str(found.value)


def test_a_dictionary_of_a_plugin_keeps_its_rows() -> None:
    rest, annotations = parse_text(json.dumps(content([PLAIN | {"id": 5}])))
    assert rest == content([None]) and annotations.ids.tolist() == [5]


def test_equal_rows_have_equal_hashes() -> None:
    draw = np.random.default_rng(0)
    column = draw.integers(0, 3, 500) - 1.0
    columns = [column * -0.0, column, draw.integers(0, 9, 500), draw.choice([1e300, np.inf, -0.0, 0.0], 500)]
    found = set(_of_equal_hash(columns).tolist())
    rows = list(zip(*(c.tolist() for c in columns), strict=True))
    assert {i for i, row in enumerate(rows) if rows.count(row) > 1} == found
    assert len(found) < 500 and not len(_of_equal_hash([np.zeros(0), np.zeros(0)]))
