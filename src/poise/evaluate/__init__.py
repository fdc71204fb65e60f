"""Measuring detectors: COCO and LVIS numbers, results as JSON, figures."""

from poise.evaluate.classes import ClassWarning, category_of_classes
from poise.evaluate.coco import Curves, Measured, measure_coco
from poise.evaluate.confusion import Confusion, confusion_matrix
from poise.evaluate.figures import write_figures
from poise.evaluate.history import plot_history, read_history
from poise.evaluate.lvis import LvisMeasured, is_lvis, measure_lvis
from poise.evaluate.metrics import ClassMetrics, Counts, LvisMetrics, Metrics
from poise.evaluate.pictures import beside_truth
from poise.evaluate.proposals import Coverage, write_proposals
from poise.evaluate.results import coco_results, read_results, write_results
from poise.evaluate.run import Evaluation, evaluate, predict_batches, to_original

__all__ = [
    "ClassMetrics", "ClassWarning", "Confusion", "Counts", "Coverage", "Curves", "Evaluation", "LvisMeasured",
    "LvisMetrics", "Measured", "Metrics", "beside_truth", "category_of_classes",
    "coco_results", "confusion_matrix", "evaluate", "is_lvis", "measure_coco", "measure_lvis",
    "plot_history", "predict_batches", "read_history", "read_results", "to_original", "write_figures",
    "write_proposals", "write_results",
]  # fmt: skip
