"""Predict a data set and evaluate the detections, in one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from poise.detection_model import DetectionModel, max_detections_of
from poise.distributed import active, rank, world_size
from poise.evaluate.analysis import Analysis, analyze
from poise.evaluate.classes import match_categories
from poise.evaluate.coco import Curves, measure_coco
from poise.evaluate.limits import warn_of_crowded_images
from poise.evaluate.lvis import is_lvis, measure_lvis
from poise.evaluate.metrics import LvisMetrics, Metrics
from poise.evaluate.results import coco_results
from poise.preprocess import to_original
from poise.storage.coco import CocoDetection, CocoTruth
from poise.structures import Batch, Detections, map_tensors


class HasMetrics(Protocol):
    """Result of a ``Measure``."""

    @property
    def metrics(self) -> Metrics | LvisMetrics: ...
    @property
    def curves(self) -> Curves: ...


Measure = Callable[[CocoTruth, Sequence[CocoDetection]], HasMetrics]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of :func:`evaluate`."""

    metrics: Metrics | LvisMetrics
    curves: Curves
    detections: list[CocoDetection] = field(
        repr=False
    )  # COCO results with the data set's ids; empty on ranks other than 0
    seconds_per_image: float  # network, NMS and copy to the CPU; mean over this rank's images, without reading them
    images: int
    truth: CocoTruth = field(repr=False)  # COCO dictionary

    def analyze(self) -> Analysis:
        """Error types, best thresholds, calibration, slices, images and likely label errors; on rank 0 only."""
        return analyze(self.truth, self.detections)


@dataclass(frozen=True, eq=False)
class RankResults:
    """Results of one process, by the index of the image in the data set."""

    results: dict[int, list[CocoDetection]]
    seconds: float


def evaluate(
    model: DetectionModel,
    loader: Iterable[Batch],
    truth: CocoTruth,
    *,
    device: torch.device | str = "cpu",
    amp: torch.dtype | None = None,
    measure: Measure | None = None,
    progress: Callable[[int], None] | None = None,
    predict: Callable[[Batch], Detections] | None = None,
) -> Evaluation:
    """Predict every image of ``truth`` and compute the metrics.

    With several ranks, each predicts the images of its loader, rank 0 computes the metrics, and all ranks return them.
    An image that two ranks predict (padded shards) counts once.

    Args:
        model: a ``DetectionModel`` (``network``, ``class_names``, ``category_ids``), in evaluation mode meanwhile. Its
            classes are matched with the categories of the truth by :func:`match_categories`.
        loader: batches whose ``indices`` point into ``truth["images"]``.
        truth: COCO dictionary with the original ids and with ``width`` and ``height`` of every image.
        amp: dtype of autocast on ``device``, by default none.
        measure: ``measure_coco`` or ``measure_lvis``; by default ``measure_lvis`` for federated truth.
        progress: called with the number of images after each batch.
        predict: replaces the prediction of a batch by the network; returns boxes in pixels of its images.

    Raises:
        ValueError: images of the truth that no rank predicts, or no class in common.
    """
    predicted = _predict(model, loader, truth, device, amp, progress, predict)
    gathered = _gather(predicted)
    if rank() == 0:
        warn_of_crowded_images(truth, max_detections_of(model))
    return _measure_on_rank_0(lambda: _measure(gathered or {}, truth, measure), predicted, truth)


def predict_batches(
    model: DetectionModel,
    loader: Iterable[Batch],
    truth: CocoTruth,
    device: torch.device | str = "cpu",
    *,
    amp: torch.dtype | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[CocoDetection]:
    """COCO results of the loader's images, boxes in pixels of the original images; arguments as in :func:`evaluate`."""
    predicted = _predict(model, loader, truth, device, amp, progress)
    return [result for index in sorted(predicted.results) for result in predicted.results[index]]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and restore the mode of each module afterward (frozen norms stay in evaluation mode)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _predict(
    model: DetectionModel,
    loader: Iterable[Batch],
    truth: CocoTruth,
    device: torch.device | str,
    amp: torch.dtype | None,
    progress: Callable[[int], None] | None,
    predict: Callable[[Batch], Detections] | None = None,
) -> RankResults:
    results: dict[int, list[CocoDetection]] = {}
    seconds = 0.0
    kind = torch.device(device).type
    names, ids = model.class_names, model.category_ids
    categories = match_categories(names, ids, truth["categories"])
    with evaluation_mode(model), torch.inference_mode():
        for batch in loader:
            started = time.perf_counter()
            with torch.autocast(kind, dtype=amp, enabled=amp is not None):
                if predict is not None:
                    detections = predict(batch)
                else:
                    detections = model.network.predict(*inputs(batch, device))
            detections = map_tensors(detections, Tensor.cpu)
            seconds += time.perf_counter() - started
            results.update(_batch_results(detections, batch, truth, categories))
            if progress is not None:
                progress(len(batch.indices))
    return RankResults(results, seconds)


def inputs(batch: Batch, device: torch.device | str) -> tuple[Any, ...]:
    """Arguments of ``network.predict``: pixels, sizes and, where the batch has them, proposals."""
    moved = (batch.pixels.to(device, non_blocking=True), batch.truth.sizes.to(device))
    return moved if batch.proposals is None else (*moved, map_tensors(batch.proposals, lambda t: t.to(device)))


def _batch_results(
    detections: Detections, batch: Batch, truth: CocoTruth, category_ids: Sequence[int | None]
) -> dict[int, list[CocoDetection]]:
    results = {}
    for index, size, one in zip(batch.indices.tolist(), batch.truth.sizes.cpu(), detections.unpad(), strict=True):
        record = truth["images"][index]
        boxes = to_original(one["boxes"].float(), size, record["height"], record["width"])
        results[index] = coco_results(
            record["id"], boxes, one["scores"].float(), one["labels"], category_ids=category_ids
        )
    return results


def _gather(predicted: RankResults) -> dict[int, list[CocoDetection]] | None:
    """Results of all ranks on rank 0, ``None`` elsewhere."""
    if not active():
        return predicted.results
    parts: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(predicted.results, parts)
    if parts is None:
        return None
    return {index: results for part in reversed(parts) for index, results in part.items()}


def _measure(
    gathered: dict[int, list[CocoDetection]], truth: CocoTruth, measure: Measure | None
) -> tuple[HasMetrics, list[CocoDetection]]:
    images = truth["images"]
    missing = [i for i in range(len(images)) if i not in gathered]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(images)} images of the ground truth were not predicted, the first has id "
            f"{images[missing[0]]['id']!r}; pass a loader of the whole data set, or the truth of the part that it loads"
        )
    detections = [result for index in sorted(gathered) for result in gathered[index]]
    measure = measure or (measure_lvis if is_lvis(truth) else measure_coco)
    return measure(truth, detections), detections


def _measure_on_rank_0(
    measure: Callable[[], tuple[HasMetrics, list[CocoDetection]]], predicted: RankResults, truth: CocoTruth
) -> Evaluation:
    """Compute the metrics on rank 0 and broadcast them, or the error, so that no rank waits forever."""
    images = len(predicted.results)
    speed = predicted.seconds / max(images, 1)
    measured: Any = None  # HasMetrics, or the error of rank 0
    detections: list[CocoDetection] = []
    if rank() == 0:
        try:
            measured, detections = measure()
        except ValueError as error:
            measured = error
    if active():
        box = [measured]
        dist.broadcast_object_list(box)
        measured = box[0]
    if isinstance(measured, ValueError):
        raise measured
    return Evaluation(measured.metrics, measured.curves, detections, speed, measured.metrics.counts.images, truth)
