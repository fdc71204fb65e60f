"""Metrics of plug-ins, in addition to those of COCO and LVIS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from poise.evaluate.coco import measure_coco
from poise.evaluate.limits import measure_with
from poise.evaluate.lvis import is_lvis, measure_lvis
from poise.evaluate.run import HasMetrics
from poise.plugins import load_plugins, with_origins
from poise.storage.coco import CocoDetection, CocoTruth
from poise.suggestions import did_you_mean

Metric = Callable[[CocoTruth, Sequence[CocoDetection]], float]

METRICS: dict[str, Metric] = {}
"""From the truth, a COCO dictionary, and the detections, COCO results, to a number in [0,1] (``register_metric``)."""


@dataclass(frozen=True)
class MeasureWithExtra:
    """Computes the metrics of ``measure``, by default those of COCO or LVIS, and those of plug-ins."""

    names: tuple[str, ...]
    measure: Callable[..., Any] | None = None

    def __call__(self, truth: CocoTruth, detections: Sequence[CocoDetection]) -> HasMetrics:
        measure = self.measure or (measure_lvis if is_lvis(truth) else measure_coco)
        measured = measure(truth, detections)
        extra = {name: float(METRICS[name](truth, detections)) for name in self.names}
        return replace(measured, metrics=replace(measured.metrics, extra=extra))


def check_metrics(names: Sequence[str], known: Sequence[str] = ()) -> None:
    """Check that plug-ins have these metrics.

    Raises:
        ValueError: one is unknown; the message lists those of plug-ins and ``known`` ones.
    """
    if any(name not in METRICS for name in names):
        load_plugins()
    for name in names:
        if name not in METRICS:
            listed = ", ".join([*known, *with_origins("metric", METRICS)]) or "none of plug-ins"
            raise ValueError(f"no metric '{name}'{did_you_mean(name, [*known, *METRICS])}; there are {listed}")


def measure_of(truth: CocoTruth, max_detections: int | None, names: Sequence[str]) -> Callable[..., Any] | None:
    """Return what measures so many detections per image and the metrics ``names``; None for the usual metrics.

    Raises:
        ValueError: no plug-in has a metric, or LVIS data with another limit.
    """
    measure = measure_with(truth, max_detections)
    if not names:
        return measure
    check_metrics(names)
    return MeasureWithExtra(tuple(names), measure)
