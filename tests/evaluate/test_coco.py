"""COCO numbers against pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poise.evaluate import measure_coco
from poise.evaluate.coco import COCO_METRICS


class HonestIgnore(COCOeval):
    """pycocotools' own code, with the one line that overwrites ``ignore`` undone."""

    def _prepare(self) -> None:
        flags = {record["id"]: record.get("ignore", 0) for record in self.cocoGt.dataset["annotations"]}
        super()._prepare()
        for records in self._gts.values():
            for record in records:
                record["ignore"] = record["ignore"] or flags[record["id"]]


def reference(truth: dict[str, Any], detections: list[dict[str, Any]], evaluator: type = COCOeval) -> COCOeval:
    """The reference's run; ids from 1, as it needs."""
    truth = copy.deepcopy(truth)
    for i, record in enumerate(truth["annotations"]):
        record["id"] = i + 1
    results = [
        {**one, "id": i + 1, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for i, one in enumerate(copy.deepcopy(detections))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gold, found = COCO(), COCO()
        gold.dataset, found.dataset = truth, {**truth, "annotations": results}
        gold.createIndex()
        found.createIndex()
        run = evaluator(gold, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def assert_equal(truth: dict[str, Any], detections: list[dict[str, Any]], evaluator: type = COCOeval) -> None:
    measured = measure_coco(truth, detections)
    run = reference(truth, detections, evaluator)
    found = [-1 if math.isnan(value) else value for value in measured.metrics.numbers().values()]
    assert found == pytest.approx(list(run.stats), abs=1e-12)
    precision = run.eval["precision"][:, :, :, 0, -1]
    for k, one in enumerate(measured.metrics.classes):
        for value, part in ((one.ap, precision[:, :, k]), (one.ap50, precision[0, :, k])):
            assert (math.isnan(value) and (part == -1).all()) or value == pytest.approx(part.mean(), abs=1e-12)


def numbers(truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """All metrics, comparable: undefined ones are ``None``, and NaN differs from itself."""
    return measure_coco(truth, detections).metrics.to_dict()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [True, False])
def test_random_data(seed: int, ties: bool) -> None:
    truth = random_truth(seed)
    assert_equal(truth, random_detections(seed, truth, ties=ties))


def test_more_than_a_hundred_detections_an_image() -> None:
    truth = random_truth(1, images=3, classes=2)
    detections = random_detections(1, truth, strays=900)
    assert max(np.bincount([one["image_id"] for one in detections])) > 250
    assert_equal(truth, detections)


def test_mostly_crowds() -> None:
    truth = random_truth(2, crowd=0.7)
    assert_equal(truth, random_detections(2, truth))


def test_one_object_found_exactly_and_the_order_of_equal_scores() -> None:
    truth = random_truth(3, images=4, crowd=0)
    exact = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for a in truth["annotations"]]
    assert measure_coco(truth, exact).metrics.ap == pytest.approx(1)
    shifted = [{**one, "bbox": [one["bbox"][0] + 3, *one["bbox"][1:]]} for one in exact]
    for detections in (shifted + exact, exact + shifted):
        assert_equal(truth, detections)


def test_no_detections() -> None:
    truth = random_truth(4)
    assert_equal(truth, [])
    metrics = measure_coco(truth, []).metrics
    assert metrics.ap == 0 and metrics.ar100 == 0 and metrics.counts.detections == 0


def test_no_ground_truth_at_all() -> None:
    truth = {**random_truth(5), "annotations": []}
    detections = random_detections(5, truth)
    assert_equal(truth, detections)
    metrics = measure_coco(truth, detections).metrics
    assert all(math.isnan(value) for value in metrics.numbers().values())
    assert all(math.isnan(one.ap) and one.objects == 0 for one in metrics.classes)
    assert metrics.to_dict()["ap"] is None and "-" in metrics.table()


def test_class_without_truth_stays_out_of_the_mean() -> None:
    truth = random_truth(6)
    metrics = measure_coco(truth, random_detections(6, truth)).metrics
    assert math.isnan(metrics.classes[-1].ap) and metrics.classes[-1].detections > 0
    assert metrics.ap == pytest.approx(np.mean([one.ap for one in metrics.classes[:-1]]))


def test_annotation_id_0_is_an_ordinary_object() -> None:
    from_zero, from_one = random_truth(7, first_id=0), random_truth(7, first_id=1)
    detections = random_detections(7, from_one)
    assert numbers(from_zero, detections) == numbers(from_one, detections)
    single = {**from_zero, "annotations": [{**from_zero["annotations"][0], "iscrowd": 0}]}
    record = single["annotations"][0]
    assert record["id"] == 0
    hit = {key: record[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
    assert measure_coco(single, [hit]).metrics.ap == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_ignored_objects_need_not_be_found_and_do_no_harm(seed: int) -> None:
    truth = random_truth(seed)
    for i, record in enumerate(truth["annotations"]):
        record["ignore"] = int(i % 3 == 0)
    detections = random_detections(seed, truth)
    assert_equal(truth, detections, HonestIgnore)
    ignored = sum(bool(r["ignore"] or r["iscrowd"]) for r in truth["annotations"])
    counts = measure_coco(truth, detections).metrics.counts
    assert (counts.ignored, counts.objects) == (ignored, len(truth["annotations"]) - ignored)


def test_text_image_ids_and_missing_areas() -> None:
    truth = random_truth(8)
    detections = random_detections(8, truth)
    for record in truth["annotations"]:
        record["area"] = record["bbox"][2] * record["bbox"][3]
    expected = numbers(truth, detections)
    for record in truth["annotations"]:
        del record["area"]
        record["image_id"] = f"photo {1000 + record['image_id']}"
    truth["images"] = sorted(truth["images"], key=lambda record: record["id"])
    for record in truth["images"]:
        record["id"] = f"photo {1000 + record['id']}"
    detections = [{**one, "image_id": f"photo {1000 + one['image_id']}"} for one in detections]
    assert numbers(truth, detections) == expected


def test_inconsistent_records_are_refused() -> None:
    truth = random_truth(9)
    good = random_detections(9, truth)[0]
    for change, words in (
        ({"image_id": 5}, "image_id 5"),
        ({"category_id": 1}, "category_id 1"),
        ({"score": float("nan")}, "not finite"),
        ({"bbox": [0, 0, float("inf"), 1]}, "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            measure_coco(truth, [good, {**good, **change}])
    truth["images"].append(truth["images"][0])
    with pytest.raises(ValueError, match="twice"):
        measure_coco(truth, [good])


def test_metrics_have_the_names_of_coco() -> None:
    truth = random_truth(10)
    metrics = measure_coco(truth, random_detections(10, truth)).metrics
    assert tuple(metrics.numbers()) == COCO_METRICS
    assert metrics.classes[1].name == "class 1" and metrics.classes[1].category_id == 5
    record = metrics.to_dict()
    assert record["classes"][1]["ap50"] == metrics.classes[1].ap50
    assert record["counts"]["images"] == 12
