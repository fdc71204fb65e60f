"""Whatever stands in an annotation file, the readers answer with a data set or a ``DataError``."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.write_data import coco_content, voc_object, write_coco, write_voc, write_yolo

from poise.data import DataError, ImageSet, open_data, with_proposals
from poise.recipes import Recipe, from_dict, load_recipe, to_dict

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


@few
@given(st.sampled_from(["neg_category_ids", "not_exhaustive_category_ids", "coco_url", "frequency"]), anything)
def test_any_value_in_lvis_and_roboflow(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_coco(Path(folder))
        content = coco_content()
        content["categories" if key == "frequency" else "images"][0][key] = value
        (root / "annotations" / "instances_train.json").rename(root / "annotations" / "lvis_v1_train.json")
        (root / "annotations" / "lvis_v1_train.json").write_text(json.dumps(content))
        opened(root)
        (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))
        opened(root)


@few
@given(st.lists(st.dictionaries(st.sampled_from(["image_id", "bbox", "score"]), anything | st.just(10))) | anything)
def test_any_proposals(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = open_data(write_coco(Path(folder)))
        file = Path(folder) / "proposals.txt"
        good = {"image_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5}
        file.write_text(json.dumps([good, *content] if isinstance(content, list) else content))
        try:
            found, _ = with_proposals(images, file, 5, "skip")
        except DataError:
            return
        assert found[0].proposals is not None and len(found[0].proposals) >= 1


@few
@given(st.sampled_from(sorted(to_dict(Recipe()))), st.text(max_size=8), anything)
def test_any_value_in_a_recipe(group: str, name: str, value: Any) -> None:
    values = to_dict(Recipe())
    for key in (name, next(iter(values[group]))):
        changed = {**values, group: {**values[group], key: value}}
        with contextlib.suppress(ValueError):
            assert isinstance(from_dict(changed), Recipe)


@few
@given(st.text(max_size=60) | st.text("modelatrn:[]{}&*!-? 0.\n", max_size=80))
def test_any_text_as_a_recipe(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8", errors="ignore")
        with contextlib.suppress(ValueError):
            assert isinstance(load_recipe(file), Recipe)
