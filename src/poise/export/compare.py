"""Compare the results of an exported file with those of the PyTorch model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from poise.boxes import pairwise_iou
from poise.suggestions import plural

BEST = 100  # priors of an image whose boxes are compared if no score passes the threshold
CONFIDENT = 0.3  # detections with at least this score must have a counterpart …
OVERLAP = 0.7  # … of the same class with at least this IoU


class ExportMismatch(ValueError):
    """The results of an exported file differ from those of the model; the file is not kept."""


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted differences."""

    boxes: float  # px of the network's input
    scores: float

    def __str__(self) -> str:
        return f"{self.boxes:g} px and {self.scores:g}"


FULL, HALF = Tolerance(0.1, 1e-3), Tolerance(1.0, 1e-2)


@dataclass(frozen=True)
class ExportComparison:
    """The largest differences over the images that were compared."""

    images: int
    compared: int  # predictions (or detections of both models) that were compared
    boxes: float  # px
    scores: float
    unmatched: int = 0  # detections of one model without a counterpart of the other
    typical: Tolerance | None = None  # medians, if counterparts were matched by IoU

    @property
    def matched_fraction(self) -> float:
        """Fraction of the detections that have a counterpart."""
        return 1 - self.unmatched / max(1, self.compared)

    def within(self, tolerance: Tolerance) -> bool:
        return self.unmatched == 0 and self.boxes <= tolerance.boxes and self.scores <= tolerance.scores

    def __str__(self) -> str:
        what = "predictions" if self.typical is None else "detections"
        missing = f", {self.unmatched} without a counterpart" if self.unmatched else ""
        medians = f" (half of them by less than {self.typical})" if self.typical else ""
        return (
            f"{self.compared} {what} on {plural(self.images, 'image')}{missing}; "
            f"boxes differ by at most {self.boxes:.2g} px, scores by {self.scores:.2g}{medians}"
        )

    def merged(self, other: ExportComparison) -> ExportComparison:
        return ExportComparison(
            self.images + other.images,
            self.compared + other.compared,
            max(self.boxes, other.boxes),
            max(self.scores, other.scores),
            self.unmatched + other.unmatched,
        )


EMPTY = ExportComparison(0, 0, 0.0, 0.0)


def compare_outputs(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float) -> ExportComparison:
    """Compare decoded ``boxes`` (B,N,4) and ``scores`` (B,N,C): all scores, and the boxes with one above the threshold.

    If no score of an image passes the threshold, the boxes of its best priors are compared.
    """
    scores = float((ours["scores"] - theirs["scores"]).abs().max())
    best_score = torch.maximum(ours["scores"], theirs["scores"]).amax(2)
    least = best_score.topk(min(BEST, best_score.shape[1]), 1).values[:, -1:]
    mask = torch.where(best_score.amax(1, keepdim=True) > threshold, best_score > threshold, best_score >= least)
    difference = (ours["boxes"] - theirs["boxes"]).abs().amax(2).where(mask, 0.0)
    return ExportComparison(len(mask), int(mask.sum()), _finite(float(difference.max())), _finite(scores))


def _finite(value: float) -> float:
    """Return infinity for NaN, which no tolerance accepts."""
    return math.inf if math.isnan(value) else value


def compare_detections(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float, tolerance: Tolerance, *, limit: int
) -> ExportComparison:
    """Match ``boxes`` (k,4), ``scores``, ``labels`` (k,) of an image one to one, except close to a cut.

    A cut is the threshold, or the lowest score of an image that has ``limit`` detections.
    """
    boxes, scores = _differences(ours, theirs)
    cost = torch.maximum(boxes / tolerance.boxes, scores / tolerance.scores)
    cost = cost.where(ours["labels"][:, None] == theirs["labels"][None], torch.inf)
    cuts = [threshold, *(float(side["scores"].min()) for side in (ours, theirs) if len(side["scores"]) >= limit)]
    result = ExportComparison(1, 0, 0.0, 0.0)
    for side, table, transposed in ((ours, cost, False), (theirs, cost.T, True)):
        confident = side["scores"] > max(cuts) + tolerance.scores
        differences = (boxes.T, scores.T) if transposed else (boxes, scores)
        found, box_difference, score_difference = _matched_one_to_one(
            table[confident], [d[confident] for d in differences]
        )
        result = result.merged(
            ExportComparison(
                0, int(confident.sum()), _largest(box_difference), _largest(score_difference), int((~found).sum())
            )
        )
    return result


def _matched_one_to_one(cost: Tensor, differences: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Match as many rows as possible to different columns at costs up to 1; return as ``_matched``."""
    accepted = cost <= 1
    rows, columns = (torch.from_numpy(i) for i in linear_sum_assignment(torch.where(accepted, cost, 1e3).numpy()))
    kept = accepted[rows, columns]
    found = torch.zeros(len(cost), dtype=torch.bool)
    found[rows[kept]] = True
    boxes, scores = (values[rows[kept], columns[kept]] for values in differences)
    return found, boxes, scores


class DetectionMatcher:
    """Matches the detections of two models by class and IoU, image by image (for int8, which moves every box)."""

    def __init__(self) -> None:
        self.images = self.compared = self.unmatched = 0
        self.boxes: list[Tensor] = []
        self.scores: list[Tensor] = []

    def add(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        """Add the ``boxes`` (k,4), ``scores`` and ``labels`` (k,) of an image by both models."""
        boxes, scores = _differences(ours, theirs)
        cost = 1 - pairwise_iou(ours["boxes"][None], theirs["boxes"][None])[0]
        cost = cost.where(ours["labels"][:, None] == theirs["labels"][None], torch.inf)
        self.images += 1
        for side, table, pair in ((ours, cost, (boxes, scores)), (theirs, cost.T, (boxes.T, scores.T))):
            confident = side["scores"] >= CONFIDENT
            found, box_difference, score_difference = _matched(table, confident, 1 - OVERLAP, pair)
            self.compared += int(confident.sum())
            self.unmatched += int((confident & ~found).sum())
            self.boxes.append(box_difference)
            self.scores.append(score_difference)

    def comparison(self) -> ExportComparison:
        boxes, scores = torch.cat(self.boxes), torch.cat(self.scores)
        typical = Tolerance(*(float(v.median()) if len(v) else 0.0 for v in (boxes, scores)))
        typical = Tolerance(float(f"{typical.boxes:.2g}"), float(f"{typical.scores:.2g}"))
        return ExportComparison(self.images, self.compared, _largest(boxes), _largest(scores), self.unmatched, typical)


def _differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the largest difference of coordinates and the difference of scores of every pair."""
    boxes = (ours["boxes"][:, None] - theirs["boxes"][None]).abs().amax(2)
    return boxes, (ours["scores"][:, None] - theirs["scores"][None]).abs()


def _matched(
    cost: Tensor, confident: Tensor, limit: float, differences: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Match rows to columns by cost up to ``limit``; return which rows match, and the differences of these."""
    if not cost.numel():
        return torch.zeros_like(confident), cost.new_zeros(0), cost.new_zeros(0)
    best, index = cost.min(1)
    found = confident & (best <= limit)
    rows = torch.arange(len(index))
    boxes, scores = (values[rows, index][found] for values in differences)
    return found, boxes, scores


def _largest(values: Tensor) -> float:
    return float(values.max()) if len(values) else 0.0
