"""Pictures that a run leaves: what it was fed, what it found, how it went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.data import ImageSet
from poise.detectors import DetectionModel
from poise.draw import draw_boxes, grid
from poise.evaluate import Evaluation
from poise.evaluate.figures import write_figures
from poise.evaluate.history import plot_history
from poise.evaluate.pictures import draw_comparison
from poise.preprocess import Preprocess
from poise.structures import Batch

MOST_IN_GRID = 16


def draw_training_batch(batch: Batch, model: DetectionModel, path: Path) -> None:
    """The images of a batch as the network gets them, with their objects (crowd and ignored regions broken)."""
    pictures = []
    for i in range(min(len(batch.pixels), MOST_IN_GRID)):
        height, width = (int(side) for side in batch.truth.sizes[i])
        image = as_photograph(batch.pixels[i, :, :height, :width], model.preprocess)
        shown = batch.truth.valid[i] | batch.truth.crowd[i]
        boxes, labels = batch.truth.boxes[i][shown], batch.truth.labels[i][shown]
        broken = batch.truth.crowd[i][shown].tolist()
        pictures.append(draw_boxes(image, boxes, labels, names=model.class_names, dashed=broken))
    grid(pictures).save(path, quality=92)


def as_photograph(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(3,H,W) RGB in [0,1] of a normalized network input: the inverse of ``Preprocess.normalize``."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    image = (pixels.cpu() * std + mean) / 255
    return (image.flip(0) if preprocess.bgr else image).clamp(0, 1)


def draw_curves(folder: Path) -> None:
    """Losses and metrics of ``results.csv``, once it has a row."""
    if (folder / "results.csv").stat().st_size:
        plot_history(folder / "results.csv", folder / "curves.png")


def draw_validation(
    folder: Path, evaluation: Evaluation, truth: Mapping[str, Any], image_set: ImageSet, most: int
) -> None:
    """Precision-recall curves, confusion matrix, and ``most`` images with objects beside their detections.

    Args:
        evaluation: of the last validation.
        truth: COCO dictionary of ``image_set``; its images are in the same order.
        most: number of images drawn, those with most objects first.
    """
    write_figures(truth, evaluation.detections, evaluation.curves, folder)
    objects, found = _by_image(truth["annotations"]), _by_image(evaluation.detections)
    places = {image["id"]: place for place, image in enumerate(truth["images"])}
    for number, image in enumerate(sorted(objects, key=lambda image: -len(objects[image]))[:most]):
        pixels = image_set.read(places[image])
        picture = draw_comparison(pixels, objects[image], found.get(image, []), truth["categories"])
        picture.save(folder / f"val_{number}.jpg", quality=92)


def _by_image(records: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["image_id"], []).append(record)
    return groups
