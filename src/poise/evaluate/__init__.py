"""Measuring detectors: COCO and LVIS numbers, results as JSON, figures."""

from poise.evaluate.coco import Curves, Measured, measure_coco
from poise.evaluate.lvis import LvisMeasured, is_lvis, measure_lvis
from poise.evaluate.metrics import ClassMetrics, Counts, LvisMetrics, Metrics
from poise.evaluate.results import coco_results, read_results, write_results
from poise.evaluate.run import Evaluation, evaluate, predict_batches, to_original

__all__ = [
    "ClassMetrics", "Counts", "Curves", "Evaluation", "LvisMeasured", "LvisMetrics", "Measured", "Metrics",
    "coco_results", "evaluate", "is_lvis", "measure_coco", "measure_lvis", "predict_batches", "read_results",
    "to_original", "write_results",
]  # fmt: skip
