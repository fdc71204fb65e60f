"""Parsing of COCO JSON: rows that are taken at once equal rows taken one by one, whatever the parser makes of them."""

from __future__ import annotations

import json
import random
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.data import DataError, coco_json
from poise.data.assemble import _of_equal_hash
from poise.data.coco_json import Annotations, parse, parse_bytes

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
    found: dict[str, Any] = {f.name: getattr(annotations, f.name) for f in fields(annotations) if f.name != "areas"}
    return found | {"areas": [None if np.isnan(area) else area for area in annotations.areas]}


@pytest.mark.parametrize("odd", [0, 1, 4, len(ODD)])
def test_rows_at_once_equal_rows_one_by_one(odd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mixed(odd)
    literal = Annotations()
    for position, row in enumerate(rows):
        literal.add(position, row)
    for chunk in (1, 16, 1000):
        monkeypatch.setattr(coco_json, "CHUNK", chunk)
        rest, quick = parse_bytes(json.dumps(content(rows)).encode(), "a")
        assert columns(quick) == columns(literal)
        assert rest == {"images": [], "categories": []}
    assert len(literal.ids) + len(literal.malformed) == len(rows) == 199


def test_polygons_are_decoded_only_for_a_record_without_box(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    original = coco_json.around_polygons
    monkeypatch.setattr(coco_json, "around_polygons", lambda found: seen.append(found) or original(found))
    parse_bytes(json.dumps(content(mixed(0))).encode(), "a")
    parse_bytes(json.dumps(content([PLAIN | {"id": "x", "segmentation": [[1, 2, 3, 4, 5, 6]]}])).encode(), "a")
    assert seen == []
    text = json.dumps(content([PLAIN | {"segmentation": [[1, 2, 3, 4, 5, 6]], "bbox": []}])).encode()
    assert parse_bytes(text, "a")[1].boxes.tolist() == [1, 2, 4, 4] and len(seen) == 1


@pytest.mark.parametrize(
    "wrong",
    ["[[1, 2, 03]]", "[[1.2.3, 2]]", "[[1, 2,, 3]]", "[[1, 2], [3]", "[[.5, 2]]", "[[1, 2.]]", '"\\x"', '"\t"', "tru"],
)
def test_damage_among_polygons_is_named_by_its_position(wrong: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("block", [1, 7, 1 << 24])
def test_text_that_is_not_utf8_is_refused_where_nothing_reads_it(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_json, "BLOCK", block)
    file = tmp_path / "a.json"
    text = json.dumps(content([PLAIN | {"id": 5, "name": "Straße"}]), ensure_ascii=False)
    file.write_text(text, encoding="utf-8-sig")
    assert parse(file)[1].ids.tolist() == [5]
    file.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=f"is not valid JSON .*position {text.index('ß')}"):
        parse(file)


ROW = '{"id": 5, "image_id": 3, "category_id": 7, "bbox": [1, 2.5, 3, 4], "area": 6.5, "iscrowd": 0'


@pytest.mark.parametrize(
    "row",
    [
        ROW + ', "bbox": [1, 2, 3, NaN]}',
        ROW + ', "area": Infinity}',
        ROW + ', "bbox": [1, 2, 3, 1e999]}',
        ROW + ', "score": -NaN}',
        ROW + ', "score": NaN, "segmentation": [[1, 2, 3]]}',
        ROW + ', "image_id": "\\ud800"}',
        ROW + ', "image_id": 9223372036854775808}',
        ROW + ', "image_id": 18446744073709551616000}',
        ROW + ', "id": -9223372036854775809}',
        ROW + ', "category_id": 1e3, "id": 12.0, "iscrowd": 1.0}',
        ROW + ', "bbox": [18446744073709551616000, 1, 2, 3], "area": 18446744073709551616000}',
        ROW + f', "bbox": [1{"0" * 400}, 1, 2, 3]}}',
        ROW + ', "ignore": null, "iscrowd": null}',
        "7",
        "null",
        "[" * 90 + "]" * 90,
        '{"image_id": 4}',
        '{"counts": [1, 2], "size": [3, 1]}',
        '{"image_id": {"image_id": 5, "bbox": [1, 2, 3, 4]}, "bbox": [1, 2, 3, 4]}',
    ],
)
def test_numbers_that_json_does_not_have_and_records_that_are_none(row: str) -> None:
    text = f'{{"images": [], "categories": [], "annotations": [{ROW}}}, {row}]}}'
    try:
        rows = json.loads(text)["annotations"]
    except json.JSONDecodeError as stated:  # minus NaN
        with pytest.raises(json.JSONDecodeError, match=re.escape(str(stated))):
            parse_bytes(text.encode(), "a")
        return
    literal = Annotations()
    for position, one in enumerate(rows):
        literal.add(position, one)
    assert repr(columns(parse_bytes(text.encode(), "a")[1])) == repr(columns(literal))


def test_a_dictionary_of_a_plugin_keeps_its_rows() -> None:
    rest, annotations = parse_bytes(json.dumps(content([PLAIN | {"id": 5}])).encode(), "a")
    assert rest == {"images": [], "categories": []} and annotations.ids.tolist() == [5]


def test_equal_rows_have_equal_hashes() -> None:
    draw = np.random.default_rng(0)
    column = draw.integers(0, 3, 500) - 1.0
    columns = [column * -0.0, column, draw.integers(0, 9, 500), draw.choice([1e300, np.inf, -0.0, 0.0], 500)]
    found = set(_of_equal_hash(columns).tolist())
    rows = list(zip(*(c.tolist() for c in columns), strict=True))
    assert {i for i, row in enumerate(rows) if rows.count(row) > 1} == found
    assert len(found) < 500 and not len(_of_equal_hash([np.zeros(0), np.zeros(0)]))
