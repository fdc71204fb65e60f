"""Whether an exported file says what the PyTorch model says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.boxes import pairwise_iou

BEST = 100  # places of an image whose boxes are compared where no score passes the threshold
CONFIDENT = 0.3  # detections from this score on must have a counterpart …
OVERLAP = 0.7  # … of the same class with at least this IoU


class ExportMismatch(ValueError):
    """An exported file gives other results than the model; it is not left behind."""


@dataclass(frozen=True)
class Tolerance:
    """How far apart results may be."""

    boxes: float  # px of the network's input
    scores: float

    def __str__(self) -> str:
        return f"{self.boxes:g} px and {self.scores:g}"


FULL, HALF = Tolerance(0.1, 1e-3), Tolerance(1.0, 1e-2)


@dataclass(frozen=True)
class ExportComparison:
    """The worst that was seen over the images compared."""

    images: int
    compared: int  # predictions (or detections, of both sides) that were compared
    boxes: float  # px
    scores: float
    unmatched: int = 0  # detections of one side that the other does not have
    typical: Tolerance | None = None  # medians, where counterparts were looked for by overlap

    @property
    def share(self) -> float:
        """Part of the detections that have a counterpart."""
        return 1 - self.unmatched / max(1, self.compared)

    def within(self, tolerance: Tolerance) -> bool:
        return self.unmatched == 0 and self.boxes <= tolerance.boxes and self.scores <= tolerance.scores

    def __str__(self) -> str:
        what = "predictions" if self.typical is None else "detections"
        missing = f", {self.unmatched} without a counterpart" if self.unmatched else ""
        medians = f" (half of them by less than {self.typical})" if self.typical else ""
        return (
            f"{self.compared} {what} on {self.images} images{missing}; "
            f"boxes differ by at most {self.boxes:.2g} px, scores by {self.scores:.2g}{medians}"
        )

    def joined(self, other: ExportComparison) -> ExportComparison:
        return ExportComparison(
            self.images + other.images,
            self.compared + other.compared,
            max(self.boxes, other.boxes),
            max(self.scores, other.scores),
            self.unmatched + other.unmatched,
        )


NOTHING = ExportComparison(0, 0, 0.0, 0.0)


def compare_outputs(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float) -> ExportComparison:
    """Decoded ``boxes`` (B,N,4) and ``scores`` (B,N,C): all scores, and the boxes where one passes the threshold.

    Of an image where none does, the boxes of the best places are compared.
    """
    scores = float((ours["scores"] - theirs["scores"]).abs().max())
    strongest = torch.maximum(ours["scores"], theirs["scores"]).amax(2)
    least = strongest.topk(min(BEST, strongest.shape[1]), 1).values[:, -1:]
    chosen = torch.where(strongest.amax(1, keepdim=True) > threshold, strongest > threshold, strongest >= least)
    apart = (ours["boxes"] - theirs["boxes"]).abs().amax(2).where(chosen, 0.0)
    return ExportComparison(len(chosen), int(chosen.sum()), _worst(float(apart.max())), _worst(scores))


def _worst(value: float) -> float:
    """A difference that is not a number is no agreement."""
    return math.inf if math.isnan(value) else value


def compare_detections(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float, tolerance: Tolerance
) -> ExportComparison:
    """``boxes`` (k,4), ``scores``, ``labels`` (k,) of an image; what is close to the threshold may be missing."""
    boxes, scores = _apart(ours, theirs)
    cost = torch.maximum(boxes / tolerance.boxes, scores / tolerance.scores)
    cost = cost.where(ours["labels"][:, None] == theirs["labels"][None], torch.inf)
    result = ExportComparison(1, 0, 0.0, 0.0)
    for side, table, near in ((ours, cost, False), (theirs, cost.T, True)):
        sure = side["scores"] > threshold + tolerance.scores
        found, far, off = _paired(table, sure, 1.0, (boxes.T, scores.T) if near else (boxes, scores))
        unmatched = int((sure & ~found).sum())
        result = result.joined(ExportComparison(0, int(sure.sum()), _greatest(far), _greatest(off), unmatched))
    return result


class DetectionMatcher:
    """Detections of two sides matched by class and overlap, image after image (for int8, which moves every box)."""

    def __init__(self) -> None:
        self.images = self.compared = self.unmatched = 0
        self.boxes: list[Tensor] = []
        self.scores: list[Tensor] = []

    def add(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        """``boxes`` (k,4), ``scores``, ``labels`` (k,) of an image by both."""
        boxes, scores = _apart(ours, theirs)
        cost = 1 - pairwise_iou(ours["boxes"][None], theirs["boxes"][None])[0]
        cost = cost.where(ours["labels"][:, None] == theirs["labels"][None], torch.inf)
        self.images += 1
        for side, table, pair in ((ours, cost, (boxes, scores)), (theirs, cost.T, (boxes.T, scores.T))):
            sure = side["scores"] >= CONFIDENT
            found, far, off = _paired(table, sure, 1 - OVERLAP, pair)
            self.compared += int(sure.sum())
            self.unmatched += int((sure & ~found).sum())
            self.boxes.append(far)
            self.scores.append(off)

    def agreement(self) -> ExportComparison:
        boxes, scores = torch.cat(self.boxes), torch.cat(self.scores)
        typical = Tolerance(*(float(v.median()) if len(v) else 0.0 for v in (boxes, scores)))
        typical = Tolerance(float(f"{typical.boxes:.2g}"), float(f"{typical.scores:.2g}"))
        return ExportComparison(
            self.images, self.compared, _greatest(boxes), _greatest(scores), self.unmatched, typical
        )


def _apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Greatest difference of coordinates, and difference of scores, of every pair."""
    boxes = (ours["boxes"][:, None] - theirs["boxes"][None]).abs().amax(2)
    return boxes, (ours["scores"][:, None] - theirs["scores"][None]).abs()


def _paired(
    cost: Tensor, sure: Tensor, limit: float, differences: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows have a counterpart of a cost up to the limit, and how far those that are ``sure`` are from it."""
    if not cost.numel():
        return torch.zeros_like(sure), cost.new_zeros(0), cost.new_zeros(0)
    best, index = cost.min(1)
    found = sure & (best <= limit)
    rows = torch.arange(len(index))
    far, off = (values[rows, index][found] for values in differences)
    return found, far, off


def _greatest(values: Tensor) -> float:
    return float(values.max()) if len(values) else 0.0
