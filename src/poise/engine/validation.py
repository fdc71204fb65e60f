"""Validation during training, and the pictures of its last result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from poise.data import ImageSet
from poise.data.loader import evaluation_loader
from poise.detectors import DetectionModel
from poise.engine.pictures import draw_curves, draw_validation
from poise.engine.processes import Processes
from poise.engine.step import PRECISIONS
from poise.engine.train import Training
from poise.evaluate import Evaluation, LvisMetrics, Metrics, evaluate, is_lvis
from poise.evaluate.limits import measure_with
from poise.evaluate.metrics import NOT_NUMBERS
from poise.recipes import Recipe


class Validation:
    """Evaluates the network and stores the last result for the pictures."""

    def __init__(self, model: DetectionModel, image_set: ImageSet, recipe: Recipe, processes: Processes) -> None:
        self.model, self.image_set, self.processes = model, image_set, processes
        self.truth = image_set.to_coco()
        self.precision = PRECISIONS.get(recipe.train.precision)
        self.loader = evaluation_loader(
            image_set,
            model.preprocess,
            batch_size=recipe.data.eval_batch_size,
            workers=recipe.data.workers,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        self.last: Evaluation | None = None
        self.measure = measure_with(self.truth, recipe.evaluate.max_detections)
        known = [f.name for f in fields(LvisMetrics if is_lvis(self.truth) else Metrics) if f.name not in NOT_NUMBERS]
        if self.measure is not None:
            known += [f"{name}@{recipe.evaluate.max_detections}" for name in ("ap", "ap50", "ap75", "ar")]
        if recipe.evaluate.metric not in known:
            raise ValueError(f"evaluate.metric='{recipe.evaluate.metric}' is none of {', '.join(known)}")

    def __call__(self) -> Mapping[str, float]:
        options: dict[str, Any] = {"device": self.processes.device, "amp": self.precision, "measure": self.measure}
        self.last = evaluate(self.model, self.loader, self.truth, **options)
        return self.last.metrics.numbers()


def draw_run(training: Training, validation: Validation | None) -> None:
    """Draw the curves and pictures of a run, finished or not."""
    draw_curves(training.folder)
    if validation is not None and validation.last is not None:
        pictures = training.recipe.evaluate.pictures
        draw_validation(training.folder, validation.last, validation.truth, validation.image_set, pictures)
