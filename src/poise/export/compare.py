"""Whether an exported file says what the PyTorch model says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class ExportMismatch(ValueError):
    """An exported file gives other results than the model; it is not left behind."""


@dataclass(frozen=True)
class Tolerance:
    """How far apart results may be."""

    boxes: float  # px of the network's input
    scores: float


FULL, HALF = Tolerance(0.1, 1e-3), Tolerance(1.0, 1e-2)


@dataclass(frozen=True)
class Agreement:
    """The worst that was seen over the images compared."""

    images: int
    compared: int  # predictions (or detections) above the model's score threshold
    boxes: float  # px
    scores: float
    unmatched: int = 0  # detections of one side that the other does not have

    def within(self, tolerance: Tolerance) -> bool:
        return self.unmatched == 0 and self.boxes <= tolerance.boxes and self.scores <= tolerance.scores

    def __str__(self) -> str:
        missing = f", {self.unmatched} without a counterpart" if self.unmatched else ""
        return (
            f"{self.compared} predictions on {self.images} images{missing}; "
            f"boxes differ by at most {self.boxes:.2g} px, scores by {self.scores:.2g}"
        )

    def joined(self, other: Agreement) -> Agreement:
        return Agreement(
            self.images + other.images,
            self.compared + other.compared,
            max(self.boxes, other.boxes),
            max(self.scores, other.scores),
            self.unmatched + other.unmatched,
        )


NOTHING = Agreement(0, 0, 0.0, 0.0)


def compare_outputs(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float) -> Agreement:
    """Decoded ``boxes`` (B,N,4) and ``scores`` (B,N,C): boxes where a score passes the threshold, all scores."""
    scores = float((ours["scores"] - theirs["scores"]).abs().max())
    confident = torch.maximum(ours["scores"], theirs["scores"]).amax(2) > threshold
    apart = (ours["boxes"] - theirs["boxes"]).abs().amax(2).where(confident, 0.0)
    return Agreement(len(confident), int(confident.sum()), _worst(float(apart.max())), _worst(scores))


def _worst(value: float) -> float:
    """A difference that is not a number is no agreement."""
    return math.inf if math.isnan(value) else value


def compare_detections(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], threshold: float, tolerance: Tolerance
) -> Agreement:
    """``boxes`` (k,4), ``scores``, ``labels`` (k,) of an image; what is close to the threshold may be missing."""
    boxes = (ours["boxes"][:, None] - theirs["boxes"][None]).abs().amax(2)
    scores = (ours["scores"][:, None] - theirs["scores"][None]).abs()
    cost = torch.maximum(boxes / tolerance.boxes, scores / tolerance.scores)
    cost = cost.where(ours["labels"][:, None] == theirs["labels"][None], torch.inf)
    result = Agreement(1, 0, 0.0, 0.0)
    for side, table in ((ours, cost), (theirs, cost.T)):
        sure = side["scores"] > threshold + tolerance.scores
        if not table.shape[1]:
            result = result.joined(Agreement(0, int(sure.sum()), 0.0, 0.0, int(sure.sum())))
            continue
        best, index = table.min(1)
        found = sure & (best <= 1)
        rows = torch.arange(len(index))
        pair = (rows, index) if side is ours else (index, rows)
        far, off = (float(values[pair].where(found, 0.0).amax()) if len(index) else 0.0 for values in (boxes, scores))
        result = result.joined(Agreement(0, int(sure.sum()), far, off, int((sure & ~found).sum())))
    return result
