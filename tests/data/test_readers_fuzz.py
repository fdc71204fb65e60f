"""Whatever stands in an annotation file, the readers answer with a data set or a ``DataError``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from write_data import coco_content, voc_object, write_coco, write_voc, write_yolo

from poise.data import DataError, ImageSet, open_data

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "file_name", "width", "height", "name", "ignore"]


def opened(root: Path) -> ImageSet | None:
    try:
        images = open_data(root, on_bad_data="skip")
    except DataError:
        return None
    boxes = images.objects.boxes
    assert ((boxes[:, 2:] > boxes[:, :2]).all()) and len(images.objects.labels) == len(boxes) == images.offsets[-1]
    json.dumps(images.to_coco())
    return images


@few
@given(st.sampled_from(["images", "annotations", "categories"]), st.sampled_from(KEYS), anything)
def test_any_value_in_coco(part: str, key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = coco_content()
        root = write_coco(Path(folder), content)
        content[part][0][key] = value
        (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
        opened(root)


@few
@given(st.dictionaries(st.sampled_from(["images", "annotations", "categories", "info"]), anything))
def test_any_coco_content(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_coco(Path(folder))
        (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
        opened(root)


@few
@given(st.binary(max_size=60) | st.text("0123456789.-einaf \n\t", max_size=60).map(str.encode))
def test_any_yolo_labels(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_yolo(Path(folder), {"a": "", "b": "1 0.5 0.5 0.2 0.2"})
        (root / "labels" / "train" / "a.txt").write_bytes(text)
        images = opened(root)
        assert images is not None and images[len(images) - 1].labels.tolist() == [1]


@few
@given(st.text(max_size=60) | st.text("abnmestrilyp:[]{}&*!- \n", max_size=60))
def test_any_yaml(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_yolo(Path(folder), {"a": "0 0.5 0.5 0.2 0.2"})
        (root / "data.yaml").write_text(text, encoding="utf-8", errors="ignore")
        opened(root)


@few
@given(st.text("<>/&;!abjectnomi0123456789 \n\"'", max_size=80) | st.text(max_size=40))
def test_any_voc_content(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_voc(Path(folder), {"a": "", "b": voc_object()})
        for content in (text, f"<annotation>{text}</annotation>"):
            (root / "Annotations" / "a.xml").write_text(content, encoding="utf-8", errors="ignore")
            images = opened(root)
            assert images is not None and images.image_ids()[-1] == "b"
