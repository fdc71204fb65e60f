"""Pictures of a run: a training batch, detections on validation images, curves."""

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

MAX_IN_GRID = 16


def draw_training_batch(batch: Batch, model: DetectionModel, path: Path) -> None:
    """Draw the images of a batch as the network receives them, with their objects; crowd regions are dashed."""
    pictures = []
    for i in range(min(len(batch.pixels), MAX_IN_GRID)):
        height, width = (int(side) for side in batch.truth.sizes[i])
        image = as_photograph(batch.pixels[i, :, :height, :width], model.preprocess)
        shown = batch.truth.valid[i] | batch.truth.crowd[i]
        boxes, labels = batch.truth.boxes[i][shown], batch.truth.labels[i][shown]
        dashed = batch.truth.crowd[i][shown].tolist()
        pictures.append(draw_boxes(image, boxes, labels, names=model.class_names, dashed=dashed))
    grid(pictures).save(path, quality=92)


def as_photograph(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Invert ``Preprocess.normalize``: return (3,H,W) RGB in [0,1] of a normalized network input."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    image = (pixels.cpu() * std + mean) / 255
    return (image.flip(0) if preprocess.bgr else image).clamp(0, 1)


def draw_curves(folder: Path) -> None:
    """Plot losses and metrics of ``results.csv`` if it has a row."""
    if (folder / "results.csv").stat().st_size:
        plot_history(folder / "results.csv", folder / "curves.png")


def draw_validation(
    folder: Path, evaluation: Evaluation, truth: Mapping[str, Any], image_set: ImageSet, max_images: int
) -> None:
    """Draw precision-recall curves, the confusion matrix, and images with ground truth and detections.

    Args:
        evaluation: of the last validation.
        truth: COCO dictionary of ``image_set``; its images are in the same order.
        max_images: number of images drawn, those with the most objects first.
    """
    write_figures(truth, evaluation.detections, evaluation.curves, folder)
    objects, detections = _by_image(truth["annotations"]), _by_image(evaluation.detections)
    index = {image["id"]: i for i, image in enumerate(truth["images"])}
    for number, image in enumerate(sorted(objects, key=lambda image: -len(objects[image]))[:max_images]):
        pixels = image_set.read(index[image])
        picture = draw_comparison(pixels, objects[image], detections.get(image, []), truth["categories"])
        picture.save(folder / f"val_{number}.jpg", quality=92)


def _by_image(records: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["image_id"], []).append(record)
    return groups
