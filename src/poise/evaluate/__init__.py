"""Evaluation of detectors: COCO and LVIS metrics, results as JSON, figures.

Each name is loaded when it is first used, so that a prediction needs no package that draws figures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.evaluate.analysis import Analysis, analyze
    from poise.evaluate.analysis_figures import write_analysis_figures
    from poise.evaluate.classes import ClassWarning, match_categories
    from poise.evaluate.coco import CocoResult, Curves, measure_coco
    from poise.evaluate.comparison import Comparison, compare
    from poise.evaluate.confusion import Confusion, confusion_matrix
    from poise.evaluate.figures import write_figures
    from poise.evaluate.history import plot_history, read_history
    from poise.evaluate.lvis import LvisResult, is_lvis, measure_lvis
    from poise.evaluate.matching import (
        ConfidenceCurve,
        DetectionMatches,
        confidence_curve,
        image_errors,
        match_by_score,
        worst_images,
    )
    from poise.evaluate.metrics import ClassMetrics, Counts, LvisMetrics, Metrics, percent
    from poise.evaluate.pictures import draw_comparison, draw_errors
    from poise.evaluate.proposals import ProposalRecall, write_proposals
    from poise.evaluate.results import coco_results, read_results, write_results
    from poise.evaluate.run import Evaluation, evaluate, predict_batches

_ROOMS = {
    "analysis": (
        "Analysis",
        "analyze",
    ),
    "analysis_figures": ("write_analysis_figures",),
    "classes": (
        "ClassWarning",
        "match_categories",
    ),
    "coco": (
        "CocoResult",
        "Curves",
        "measure_coco",
    ),
    "comparison": (
        "Comparison",
        "compare",
    ),
    "confusion": (
        "Confusion",
        "confusion_matrix",
    ),
    "figures": ("write_figures",),
    "history": (
        "plot_history",
        "read_history",
    ),
    "lvis": (
        "LvisResult",
        "is_lvis",
        "measure_lvis",
    ),
    "matching": (
        "ConfidenceCurve",
        "DetectionMatches",
        "confidence_curve",
        "image_errors",
        "match_by_score",
        "worst_images",
    ),
    "metrics": (
        "ClassMetrics",
        "Counts",
        "LvisMetrics",
        "Metrics",
        "percent",
    ),
    "pictures": (
        "draw_comparison",
        "draw_errors",
    ),
    "proposals": (
        "ProposalRecall",
        "write_proposals",
    ),
    "results": (
        "coco_results",
        "read_results",
        "write_results",
    ),
    "run": (
        "Evaluation",
        "evaluate",
        "predict_batches",
    ),
}
_FILE_OF = {name: file for file, names in _ROOMS.items() for name in names}

__all__ = [
    "Analysis", "ClassMetrics", "ClassWarning", "CocoResult", "Comparison", "ConfidenceCurve", "Confusion", "Counts",
    "Curves", "DetectionMatches", "Evaluation", "LvisMetrics", "LvisResult", "Metrics", "ProposalRecall", "analyze",
    "coco_results", "compare", "confidence_curve", "confusion_matrix", "draw_comparison", "draw_errors", "evaluate",
    "image_errors", "is_lvis", "match_by_score", "match_categories", "measure_coco", "measure_lvis", "percent",
    "plot_history", "predict_batches", "read_history", "read_results", "worst_images",
    "write_analysis_figures", "write_figures", "write_proposals", "write_results",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
