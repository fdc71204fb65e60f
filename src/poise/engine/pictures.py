"""Pictures of a run: training batches, detections, errors, curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from poise.data import ImageSet
from poise.detection_model import DetectionModel
from poise.draw import draw_boxes, grid
from poise.evaluate import Analysis, Evaluation, match_by_score, worst_images, write_analysis_figures
from poise.evaluate.analysis import describe
from poise.evaluate.figures import write_figures
from poise.evaluate.history import plot_history
from poise.evaluate.pictures import FONT_SIZE, draw_comparison, draw_errors, fit
from poise.preprocess import Preprocess
from poise.storage import write_text_atomically
from poise.storage.coco import CocoAnnotation, CocoDetection, CocoTruth
from poise.structures import Batch

MAX_IN_GRID = 16
CELL = 480  # pixels of the longer side of an image in the grid of a training batch
METRICS, CAPTIONS, ANALYSIS = "metrics.json", "captions.json", "analysis.json"


def draw_training_batch(batch: Batch, model: DetectionModel, path: Path) -> None:
    """Draw the images of a batch as the network gets them, with their objects (crowd and ignored regions dashed).

    As many images are drawn as fill the grid.
    """
    columns, rows = grid_shape(min(len(batch.pixels), MAX_IN_GRID))
    pictures = []
    for i in range(columns * rows):
        height, width = (int(side) for side in batch.truth.sizes[i])
        picture, scale = fit(_picture(batch.pixels[i, :, :height, :width], model.preprocess), CELL)
        shown = batch.truth.valid[i] | batch.truth.crowd[i]
        boxes, labels = scale * batch.truth.boxes[i][shown], batch.truth.labels[i][shown]
        crowd = batch.truth.crowd[i][shown].tolist()
        pictures.append(draw_boxes(picture, boxes, labels, names=model.class_names, dashed=crowd, font_size=FONT_SIZE))
    grid(pictures, columns).save(path, quality=90)


def grid_shape(count: int) -> tuple[int, int]:
    """Columns and rows of a full grid with as many of ``count`` pictures as possible, at most 2.5 columns per row."""
    shapes = [(min(count // rows, int(2.5 * rows) + (rows == 1)), rows) for rows in range(1, math.isqrt(count) + 1)]
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[1]))


def _picture(pixels: Tensor, preprocess: Preprocess) -> Image.Image:
    array = (denormalize(pixels, preprocess) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array)


def denormalize(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(3,H,W) RGB in [0,1] of a normalized network input: the inverse of ``Preprocess.normalize``."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    image = (pixels.cpu() * std + mean) / 255
    return (image.flip(0) if preprocess.bgr else image).clamp(0, 1)


def draw_curves(folder: Path) -> None:
    """Plot losses and metrics of ``results.csv``, once it has a row."""
    if (folder / "results.csv").stat().st_size:
        plot_history(folder / "results.csv", folder / "curves.png")


def write_evaluation(
    folder: Path, evaluation: Evaluation, image_set: ImageSet, limit: int, *, epoch: int | None = None
) -> Analysis:
    """Write metrics, analysis and figures of an evaluation, and pictures: images with detections and ground truth,
    images with most errors, likely label errors.

    Args:
        image_set: the images, in the order of those of ``evaluation.truth``.
        limit: number of images of each kind; of the first, those with most objects.
        epoch: of the model file, from 1.

    Returns:
        The analysis, which ``analysis.json`` contains.
    """
    truth = evaluation.truth
    matches, analysis = match_by_score(truth, evaluation.detections), evaluation.analyze()
    numbers = {"split": image_set.name, **evaluation.metrics.to_dict(), **stored_thresholds(analysis)}
    numbers |= {} if epoch is None else {"epoch": epoch}
    write_text_atomically(folder / METRICS, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    text = json.dumps(analysis.to_dict(), indent=1, ensure_ascii=False)
    write_text_atomically(folder / ANALYSIS, text + "\n")
    write_figures(truth, evaluation.detections, evaluation.curves, folder)
    write_analysis_figures(analysis, folder)
    captions = _draw_detections(folder, evaluation, truth, image_set, limit)
    captions |= _draw_label_errors(folder, analysis, evaluation, image_set, limit)
    names = {record["id"]: str(record.get("name", record["id"])) for record in truth["categories"]}
    position = {record["id"]: i for i, record in enumerate(truth["images"])}
    records = (evaluation.detections, truth["annotations"])
    for number, errors in enumerate(worst_images(matches, limit)):
        index = position[matches.truth.image_ids[errors.image]]
        true, false = ([records[0][i] for i in rows] for rows in (errors.true_positives, errors.false_positives))
        missed = [records[1][i] for i in errors.missed]
        picture = draw_errors(image_set.read(index), true, false, missed, names=names)
        picture.save(folder / f"errors_{number}.jpg", quality=90)
        file = image_set[index].path.name
        captions[f"errors_{number}.jpg"] = f"{file}: {len(missed)} missed, {len(false)} false, {len(true)} found"
    write_text_atomically(folder / CAPTIONS, json.dumps(captions, indent=1, ensure_ascii=False) + "\n")
    return analysis


def stored_thresholds(analysis: Analysis) -> dict[str, object]:
    """``best_f1`` over all classes and ``thresholds`` by class name, as in ``metrics.json``; None where undefined."""
    best = analysis.threshold
    numbers = {key: getattr(best, key) for key in ("threshold", "precision", "recall", "f1")}
    by_class = {one.name: None if math.isnan(one.threshold) else one.threshold for one in analysis.thresholds}
    return {"best_f1": None if math.isnan(best.f1) else numbers, "thresholds": by_class}


def _draw_label_errors(
    folder: Path, analysis: Analysis, evaluation: Evaluation, image_set: ImageSet, limit: int
) -> dict[str, str]:
    """Draw the images with the most confident label errors: detections in red, annotations in yellow."""
    truth = evaluation.truth
    position = {record["id"]: i for i, record in enumerate(truth["images"])}
    names = {record["id"]: str(record.get("name", record["id"])) for record in truth["categories"]}
    images = list(dict.fromkeys(one.image_id for one in analysis.label_errors))[:limit]
    captions = {}
    for number, image_id in enumerate(images):
        errors = [one for one in analysis.label_errors if one.image_id == image_id]
        found = [evaluation.detections[one.detection] for one in errors]
        annotated = [truth["annotations"][one.annotation] for one in errors if one.annotation is not None]
        index = position[image_id]
        picture = draw_errors(image_set.read(index), [], found, annotated, names=names)
        picture.save(folder / f"label_{number}.jpg", quality=90)
        captions[f"label_{number}.jpg"] = f"{image_set[index].path.name}: {'; '.join(map(describe, errors[:3]))}"
    return captions


def _draw_detections(
    folder: Path, evaluation: Evaluation, truth: CocoTruth, image_set: ImageSet, limit: int
) -> dict[str, str]:
    """Draw the images with most objects; returns the caption of each file."""
    objects, detections = _by_image(truth["annotations"]), _by_image(evaluation.detections)
    position = {record["id"]: i for i, record in enumerate(truth["images"])}
    captions = {}
    for number, image in enumerate(sorted(objects, key=lambda image: -len(objects[image]))[:limit]):
        found = detections.get(image, [])
        picture = draw_comparison(image_set.read(position[image]), objects[image], found, truth["categories"])
        picture.save(folder / f"val_{number}.jpg", quality=90)
        captions[f"val_{number}.jpg"] = image_set[position[image]].path.name
    return captions


Record = TypeVar("Record", CocoAnnotation, CocoDetection)


def _by_image(records: list[Record]) -> dict[int | str, list[Record]]:
    groups: dict[int | str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["image_id"], []).append(record)
    return groups
