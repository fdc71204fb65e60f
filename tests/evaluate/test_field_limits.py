"""Images with more objects than detections count: what COCO's metrics say, what a greater limit says, and the notes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poise import Detector
from poise.cli import main
from poise.data import write_demo_data
from poise.engine.run import Validation
from poise.evaluate import measure_coco
from poise.evaluate.limits import DetectionLimitWarning, measure_with
from poise.models import create_model
from poise.models.files import save_model
from poise.recipes import EvaluateSettings

SIDE, STEP = 20, 25


def crowd(count: int, classes: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``count`` objects of each class in one image, and a perfect detection of each."""
    boxes = [[STEP * (i % 40), STEP * (i // 40), SIDE, SIDE] for i in range(count * classes)]
    objects = [
        {"id": i + 1, "image_id": 5, "category_id": 1 + i % classes, "bbox": box, "area": SIDE**2, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    truth = {
        "images": [{"id": 5, "file_name": "a.png", "width": 1000, "height": 1000}],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(classes)],
        "annotations": objects,
    }
    found = [
        {"image_id": 5, "category_id": one["category_id"], "bbox": one["bbox"], "score": 1 - i / 10_000}
        for i, one in enumerate(objects)
    ]
    return truth, found


def pycocotools_at(truth: dict[str, Any], found: list[dict[str, Any]], limit: int) -> dict[str, float]:
    """Means of pycocotools' own arrays at a limit; its summary knows no other than 100."""
    gold = COCO()
    gold.dataset = truth
    gold.createIndex()
    evaluator = COCOeval(gold, gold.loadRes(found), "bbox")
    evaluator.params.maxDets = [1, 10, limit]
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = (evaluator.eval[name][..., 0, -1] for name in ("precision", "recall"))
    return {"ap": precision[precision >= 0].mean(), "ap50": precision[0].mean(), "ar": recall[recall >= 0].mean()}


def test_300_perfect_detections_of_300_objects(tmp_path: Path) -> None:
    truth, found = crowd(300)
    with pytest.warns(DetectionLimitWarning, match=r"image 5: 300 of 'class 0'.*greater max_detections"):
        usual = measure_coco(truth, found).metrics
    assert usual.ap == pytest.approx(pycocotools_at(truth, found, 100)["ap"]) == pytest.approx(0.337, abs=1e-3)
    assert usual.beyond is None and "@" not in usual.table()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = measure_coco(truth, found, max_detections=300)
    metrics = result.metrics
    assert metrics.ap == usual.ap and metrics.ar100 == usual.ar100  # the twelve stay pycocotools'
    assert metrics.beyond is not None and (metrics.beyond.ap, metrics.beyond.ar) == (1.0, 1.0)
    assert metrics.numbers()["ap@300"] == 1.0 and metrics.classes[0].ap == 1.0
    assert "AP@300  AP50@300  objects" in metrics.table() and "ap@300       100.0" in metrics.table()
    assert json.loads(json.dumps(metrics.to_dict()))["beyond"]["max_detections"] == 300
    assert result.curves.max_detections == 300


def test_equal_to_pycocotools_at_the_same_limit() -> None:
    truth, found = crowd(150, classes=2)
    random = np.random.default_rng(0)
    for one in found:
        one["bbox"] = (np.array(one["bbox"]) + random.uniform(-4, 4, 4)).tolist()
        one["score"] = float(random.uniform())
    with pytest.warns(DetectionLimitWarning, match="150 of 'class 0'"):
        beyond = measure_coco(truth, found, max_detections=140).metrics.beyond
    assert beyond is not None
    expected = pycocotools_at(truth, found, 140)
    assert {name: getattr(beyond, name) for name in expected} == pytest.approx(expected, abs=1e-12)


def test_a_limit_below_100_changes_no_metric() -> None:
    assert measure_with({"images": []}, 50) is None and measure_with({"images": []}, None) is None
    with pytest.raises(ValueError, match="300 detections per image"):
        measure_with({"images": [{"neg_category_ids": []}]}, 500)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "model.pt"
    small = {"backbone": "test_byobnet", "channels": 8, "depth": 1, "score_threshold": 0.0, "nms_threshold": 1.0}
    save_model(create_model("atss_r18_fpn", 8, image_size=64, **small), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("limits") / "data", train=1, val=1, size=64)


def test_the_model_gives_as_many_as_asked_for(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(model), "--data", str(data), "--device", "cpu", "--max-detections", "130", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["beyond"]["max_detections"] == 130
    detector = Detector(model, "cpu")
    assert len(detector.val(data).detections) == 100
    assert len(detector.val(data, max_detections=130).detections) == 130
    with pytest.warns(DetectionLimitWarning, match=r"more objects than the 1 detections that the model returns"):
        assert len(detector.val(data, max_detections=1).detections) == 1


@pytest.mark.parametrize("name", ["atss_r18_fpn", "faster_rcnn_r18_fpn", "deformable_detr_r18", "nanodet_plus_m_320"])
def test_every_kind_of_model_has_the_option(name: str) -> None:
    from poise.detection_model import max_detections_of

    assert max_detections_of(create_model(name, 2, max_detections=37)) == 37


def test_validation_of_a_training_counts_as_many(model: Path, data: Path) -> None:
    from dataclasses import replace

    import torch

    from poise.data import open_data
    from poise.engine.processes import Processes
    from poise.recipes import get_recipe

    recipe = get_recipe("atss_r18_fpn")
    settings = EvaluateSettings(max_detections=130, metric="ap@130")
    recipe = replace(recipe, evaluate=settings, data=replace(recipe.data, workers=0))
    processes = Processes(torch.device("cpu"))
    validation = Validation(Detector(model, "cpu").model, open_data(data, "val"), recipe, processes)
    assert "ap@130" in validation()
    usual = replace(recipe, evaluate=replace(settings, max_detections=100))
    with pytest.raises(ValueError, match=r"evaluate.metric='ap@130' is none of"):
        Validation(Detector(model, "cpu").model, open_data(data, "val"), usual, processes)
