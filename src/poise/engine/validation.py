"""Validation during training, the figures and pictures of the best result, and a record of the run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from poise.data import ImageSet
from poise.data.hold_out import VAL_IMAGES, validation_names
from poise.data.loader import evaluation_loader
from poise.detection_model import DetectionModel
from poise.engine.pictures import draw_curves, write_evaluation
from poise.engine.processes import Processes
from poise.engine.step import PRECISIONS
from poise.engine.train import Training, metric_value
from poise.evaluate import Evaluation, LvisMetrics, Metrics, evaluate, is_lvis
from poise.evaluate.extra import METRICS, MeasureWithExtra
from poise.evaluate.limits import measure_with
from poise.evaluate.metrics import NOT_NUMBERS
from poise.evaluate.run import Measure
from poise.models.files import load_model
from poise.plugins import load_plugins, with_origins
from poise.recipes import Recipe
from poise.storage import write_text_atomically

RECORD = "run.json"


class Validation:
    """Evaluates the network during training and stores the evaluation of the best epoch."""

    def __init__(
        self,
        model: DetectionModel,
        image_set: ImageSet,
        recipe: Recipe,
        processes: Processes,
        *,
        best: tuple[float, int] | None = None,
    ) -> None:
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
        self.best: Evaluation | None = None  # of best.pt; None where an earlier process made it
        self.best_value = -math.inf if best is None else best[0]
        self.metric = recipe.evaluate.metric
        self.measure: Measure | None = measure_with(self.truth, recipe.evaluate.max_detections)
        known = [f.name for f in fields(LvisMetrics if is_lvis(self.truth) else Metrics) if f.name not in NOT_NUMBERS]
        if self.measure is not None:
            known += [f"{name}@{recipe.evaluate.max_detections}" for name in ("ap", "ap50", "ap75", "ar")]
        if recipe.evaluate.metric not in known:
            load_plugins()
            if recipe.evaluate.metric not in METRICS:
                names = [*known, *with_origins("metric", METRICS)]
                raise ValueError(f"evaluate.metric='{recipe.evaluate.metric}' is none of {', '.join(names)}")
            self.measure = MeasureWithExtra((recipe.evaluate.metric,), self.measure)

    def __call__(self) -> Mapping[str, float]:
        evaluation = self._evaluate(self.model)
        numbers = evaluation.metrics.numbers()
        value = metric_value(numbers, self.metric)
        if value > self.best_value:
            self.best, self.best_value = evaluation, value
        return numbers

    def evaluate_file(self, path: Path) -> None:
        """Evaluate a model file as the best one; all processes call this."""
        self.best = self._evaluate(load_model(path, self.processes.device))

    def _evaluate(self, model: DetectionModel) -> Evaluation:
        device = self.processes.device
        return evaluate(model, self.loader, self.truth, device=device, amp=self.precision, measure=self.measure)


def draw_run(training: Training, validation: Validation | None) -> None:
    """Draw the curves of a run, finished or not, and the figures and pictures of ``best.pt``."""
    draw_curves(training.folder)
    best = training.state.best
    if validation is not None and validation.best is not None and best is not None:
        limit = training.recipe.evaluate.pictures
        write_evaluation(training.folder, validation.best, validation.image_set, limit, epoch=best[1])


def write_record(
    folder: Path, recipe: Recipe, processes: Processes, train_set: ImageSet, *, val_set: ImageSet | None
) -> list[str]:
    """Write ``run.json`` (model, data, machine, start of the run) and the names of held-out images.

    Returns a note for the user if a resumed run had other data before.
    """
    device = processes.device
    if device.type == "cuda":
        machine = f"{processes.world_size} x {torch.cuda.get_device_name(device)}"
    else:
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    path = folder / RECORD
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}  # of a resumed run
    record = {
        "model": recipe.model.name,
        "data": " + ".join(Path(path).name for path in recipe.data.paths),
        "train": {"split": train_set.name, "images": len(train_set)},
        "val": None if val_set is None else {"split": val_set.name, "images": len(val_set)},
        "sources": _sources(train_set, val_set),
        "fingerprint": fingerprint(train_set, val_set),
        "device": device.type,
        "machine": machine,
        "torch": torch.__version__,
        "started": before.get("started") or time.strftime("%Y-%m-%d %H:%M"),
    }
    write_text_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if recipe.data.val_share and val_set is not None:
        write_text_atomically(folder / VAL_IMAGES, "".join(f"{name}\n" for name in validation_names(val_set)))
    changed = before.get("fingerprint", record["fingerprint"]) != record["fingerprint"]
    what = "the data are not those with which the run began (files, sizes, objects, classes or their order)"
    return [f"warning: {what}: the rest of the training differs from an uninterrupted one"] if changed else []


def _sources(train_set: ImageSet, val_set: ImageSet | None) -> list[dict[str, object]]:
    """The data sets that were joined; empty where there is one."""
    found: dict[str, dict[str, object]] = {}
    for part, image_set in (("train", train_set), ("val", val_set)):
        if image_set is None or image_set.images.source is None:
            continue
        counts = np.bincount(image_set.images.source, minlength=len(image_set.sources)).tolist()
        for source, images in zip(image_set.sources, counts, strict=True):
            entry: dict[str, object] = {
                "name": source.name,
                "path": str(source.root),
                "classes": list(source.class_names),
            }
            found.setdefault(source.name, entry)[part] = {"split": source.split, "images": images}
    return list(found.values())


def fingerprint(*image_sets: ImageSet | None) -> str:
    """SHA-256 of the files, sizes, ids and objects of image sets, in their order; the pictures are not read."""
    digest = hashlib.sha256()
    for image_set in image_sets:
        if image_set is not None:
            images, objects = image_set.images, image_set.objects
            files, ids = "\n".join(images.files.tolist()), "\n".join(map(str, image_set.image_ids()))
            digest.update("\0".join([files, ids, *image_set.class_names]).encode("utf-8", "surrogatepass"))
            columns = (images.widths, images.heights, image_set.offsets, objects.boxes, objects.labels)
            for column in (*columns, objects.crowd, objects.ignore):
                digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
