"""Numbers behind the figures, and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.cases import random_detections, random_truth
from PIL import Image

from poise.evaluate import (
    confusion_matrix,
    draw_comparison,
    draw_errors,
    measure_coco,
    plot_history,
    read_history,
    write_figures,
)
from poise.evaluate.figures import true_positives

TRUTH: dict[str, Any] = {
    "images": [{"id": 4, "width": 200, "height": 200}, {"id": 9, "width": 200, "height": 200}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 0, "image_id": 4, "category_id": 3, "bbox": [0, 0, 50, 50]},
        {"id": 1, "image_id": 4, "category_id": 7, "bbox": [100, 100, 40, 40]},
        {"id": 2, "image_id": 4, "category_id": 7, "bbox": [0, 100, 90, 90], "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 7, "bbox": [0, 0, 50, 50]},
    ],
}


def found(image: int, category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_confusion_of_a_hand_made_case() -> None:
    detections = [
        found(4, 7, [0, 0, 50, 50], 0.99),  # on the cat, best overlap, but a dog: the cat's own detection goes first
        found(4, 3, [0, 0, 50, 46], 0.5),  # cat as cat
        found(4, 3, [100, 100, 40, 38]),  # dog as cat
        found(4, 3, [10, 110, 20, 20]),  # within the crowd: left out
        found(4, 7, [150, 0, 30, 30]),  # nothing there
        found(4, 7, [180, 0, 10, 10], 0.1),  # below the score
    ]
    confusion = confusion_matrix(TRUTH, detections)
    assert confusion.matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]
    assert confusion.names == ("cat", "dog")


@pytest.mark.parametrize("seed", range(3))
def test_confusion_counts_every_object_once(seed: int) -> None:
    truth = random_truth(seed)
    matrix = confusion_matrix(truth, random_detections(seed, truth), score=0.5).matrix
    wanted = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    assert matrix[:-1].sum(1).tolist() == [wanted.count(c["id"]) for c in truth["categories"]]
    assert matrix[-1, -1] == 0


def test_true_positives() -> None:
    detections = [
        found(4, 3, [0, 0, 50, 40], 0.2),
        found(4, 3, [0, 0, 50, 50], 0.1),
        found(9, 3, [0, 0, 50, 50], 0.3),
        found(9, 7, [0, 0, 50, 24], 0.4),
    ]
    right, scores = true_positives(TRUTH, detections)
    assert right.tolist() == [False, True, False, False] and scores.tolist() == [0.2, 0.1, 0.3, 0.4]


@pytest.mark.parametrize("filled", [True, False])
def test_figures_are_written_also_without_truth_or_detections(tmp_path: Path, filled: bool) -> None:
    truth = random_truth(0)
    detections = random_detections(0, truth) if filled else []
    if not filled:
        truth["annotations"] = []
    files = write_figures(truth, detections, measure_coco(truth, detections).curves, tmp_path / "figures")
    assert [f.name for f in files] == [
        "precision_recall.png",
        "precision_recall_by_iou.png",
        "confusion.png",
        "confusion_normalized.png",
        "confidence.png",
        "scores.png",
        "labels.png",
    ]
    for file in files:
        with Image.open(file) as picture:
            colors = len(picture.convert("RGB").getcolors(1 << 24) or [])
            assert min(picture.size) > 300 and colors > (30 if filled else 5)


def test_history_with_gaps(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(
        "epoch,step,lr,loss/cls,loss/box,ap,ap50\n0.5,5,0.1,3,2,,\n1,10,0.1,2,1,0.1,nan\n2,20,0.01,1,1,0.3,0.5\n"
    )
    history = read_history(file)
    assert history["loss/cls"] == [3, 2, 1] and np.isnan(history["ap"][0]) and history["ap50"][2] == 0.5
    with Image.open(plot_history(file, tmp_path / "curves.png")) as picture:
        assert picture.width > 2.5 * picture.height  # three panels: losses, precision, rate
    file.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_history(file)


def test_pictures_of_truth_and_errors() -> None:
    black = Image.new("RGB", (200, 200))
    here = [a for a in TRUTH["annotations"] if a["image_id"] == 4]
    sheet = draw_comparison(black, here, [found(4, 7, [20, 20, 100, 100])], TRUTH["categories"])
    assert sheet.width > 400
    fewer = draw_comparison(black, here, [found(4, 7, [20, 20, 100, 100], 0.1)], TRUTH["categories"])
    half = sheet.width // 2
    left, right = (0, 20, half, sheet.height), (half, 20, sheet.width, sheet.height)
    assert sheet.crop(left).tobytes() == fewer.crop(left).tobytes()
    assert sheet.crop(right).tobytes() != fewer.crop(right).tobytes()
    large = draw_comparison(black.resize((2000, 2000)), [], [], TRUTH["categories"])
    assert large.size == sheet.size  # text is drawn after scaling
    names = {one["id"]: one["name"] for one in TRUTH["categories"]}
    errors = draw_errors(black, [], [found(4, 7, [20, 20, 100, 100])], here, names=names)
    colors = {color for _, color in errors.getcolors(1 << 24) or []}
    assert {(255, 56, 56), (255, 214, 0)} <= colors and (170, 178, 188) not in colors
