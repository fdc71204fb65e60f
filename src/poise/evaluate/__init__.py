"""Evaluation of detectors: COCO and LVIS metrics, results as JSON, figures."""

from poise.evaluate.classes import ClassWarning, match_categories
from poise.evaluate.coco import CocoResult, Curves, measure_coco
from poise.evaluate.confusion import Confusion, confusion_matrix
from poise.evaluate.figures import write_figures
from poise.evaluate.history import plot_history, read_history
from poise.evaluate.lvis import LvisResult, is_lvis, measure_lvis
from poise.evaluate.metrics import ClassMetrics, Counts, LvisMetrics, Metrics
from poise.evaluate.pictures import draw_comparison
from poise.evaluate.proposals import ProposalRecall, write_proposals
from poise.evaluate.results import coco_results, read_results, write_results
from poise.evaluate.run import Evaluation, evaluate, predict_batches, to_original

__all__ = [
    "ClassMetrics", "ClassWarning", "CocoResult", "Confusion", "Counts", "Curves", "Evaluation", "LvisMetrics",
    "LvisResult", "Metrics", "ProposalRecall", "coco_results", "confusion_matrix", "draw_comparison", "evaluate",
    "is_lvis", "match_categories", "measure_coco", "measure_lvis", "plot_history", "predict_batches", "read_history",
    "read_results", "to_original", "write_figures", "write_proposals", "write_results",
]  # fmt: skip
