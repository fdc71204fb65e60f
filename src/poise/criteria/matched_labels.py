"""Classification losses whose target at the matched class is a function of the box's IoU u and of the score p.

With t = ``labels(p, u)``, t = 0 where nothing is matched, each is a factor times the cross entropy BCE(p, t). The IoU
carries no gradient, and neither does t. ``class_loss`` of a criterion may be one of these; its ``soft_label`` is then
``matched_iou``, or ``matched_iou_of_normalized_boxes`` of the queries of a DETR.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from poise.boxes import EPS, cxcywh_to_xyxy, iou
from poise.losses import binary_cross_entropy
from poise.structures import Assignment, Predictions, QueryPredictions


def matched_iou(predictions: Predictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """Return the IoU (B,N) of each positive's box with the box of its object, in [1e-6,1]; 0 elsewhere, no gradient."""
    return _of_positives(iou(predictions.boxes.detach(), objects), assignment)


def matched_iou_of_normalized_boxes(predictions: QueryPredictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """Return ``matched_iou`` of the normalized boxes of queries and objects."""
    overlap = iou(cxcywh_to_xyxy(predictions.normalized_boxes.detach()), cxcywh_to_xyxy(objects))
    return _of_positives(overlap, assignment)


def _of_positives(overlap: Tensor, assignment: Assignment) -> Tensor:
    return torch.where(assignment.positive, overlap.clamp(EPS, 1), 0.0)


@dataclass(frozen=True)
class MatchedLabel(ABC):
    """A loss of logits and IoUs (B,N,C), factor(p, t) BCE(p, t) with t = labels(p, u)."""

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in vars(self).items() if name == "gamma" and not value >= 1}
        wrong |= {name: value for name, value in vars(self).items() if name == "alpha" and not 0 <= value <= 1}
        if wrong:
            raise ValueError(f"{self}: gamma is at least 1 (below, the slope at p = 0 is infinite), alpha in [0,1]")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the elementwise loss (B,N,C); ``targets`` are the IoU at the matched class and 0 elsewhere."""
        p = logits.sigmoid()
        t = self.labels(p, targets)
        return self.factor(p, t, targets > 0) * binary_cross_entropy(logits, t)

    @abstractmethod
    def labels(self, p: Tensor, targets: Tensor) -> Tensor:
        """Return t (B,N,C), without gradient."""

    @abstractmethod
    def factor(self, p: Tensor, t: Tensor, matched: Tensor) -> Tensor:
        """Return the factor of the cross entropy (B,N,C)."""


@dataclass(frozen=True)
class Matchability(MatchedLabel):
    """Matchability-aware loss (MAL; DEIM: Huang et al. 2025, arXiv 2412.04234, section 3.3).

    t = u^gamma; the factor is 1 at the matched class, whatever its IoU, and p^gamma elsewhere. So a match of low
    quality keeps a loss, which the varifocal loss scales down by its IoU.

    Args:
        gamma: exponent of the IoU and of p.
        detach_factor: p^gamma has no gradient, as in the authors' code; otherwise it is part of the loss.
    """

    gamma: float = 1.5
    detach_factor: bool = True

    def labels(self, p: Tensor, targets: Tensor) -> Tensor:
        """Return u^gamma."""
        return targets**self.gamma

    def factor(self, p: Tensor, t: Tensor, matched: Tensor) -> Tensor:
        """Return 1 at the matched class and p^gamma elsewhere."""
        return torch.where(matched, 1.0, (p.detach() if self.detach_factor else p) ** self.gamma)


@dataclass(frozen=True)
class IoUAware(MatchedLabel):
    """IoU-aware BCE (IA-BCE; Align-DETR: Cai et al. 2023, arXiv 2304.07527, section 3.2).

    t = p^alpha u^(1 - alpha), at least ``floor``; the factor is 1 at the matched class and p^gamma elsewhere. The
    article's weights of ranks (prime sample weighting), 1 for one query an object, are not part of it.

    Args:
        alpha: share of the score in the target.
        gamma: exponent of p where nothing is matched.
        floor: least target of a matched class (the authors' code).
    """

    alpha: float = 0.25
    gamma: float = 2.0
    floor: float = 0.01

    def labels(self, p: Tensor, targets: Tensor) -> Tensor:
        """Return p^alpha u^(1 - alpha) where u > 0."""
        quality = p.detach() ** self.alpha * targets ** (1 - self.alpha)
        return torch.where(targets > 0, quality.clamp(min=self.floor), 0.0)

    def factor(self, p: Tensor, t: Tensor, matched: Tensor) -> Tensor:
        """Return 1 at the matched class and p^gamma elsewhere."""
        return torch.where(matched, 1.0, p**self.gamma)


@dataclass(frozen=True)
class PositionSupervised(MatchedLabel):
    """Position-supervised loss (Stable-DINO: Liu et al. 2023, arXiv 2304.04742, section 3.3).

    t = u^power, scaled so that the largest of an image (and of a decoder layer) is 1, as in the authors' code; the
    article also tries the largest IoU of the image. The factor is alpha |t - p|^gamma at the matched class and
    (1 - alpha) p^gamma elsewhere.

    Args:
        power: exponent of the IoU.
        alpha, gamma: of the focal loss.
    """

    power: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    def labels(self, p: Tensor, targets: Tensor) -> Tensor:
        """Return u^power divided by the largest of the image."""
        quality = targets**self.power
        largest = quality.amax((1, 2), keepdim=True)
        return torch.where(largest > 0, quality / largest, quality)

    def factor(self, p: Tensor, t: Tensor, matched: Tensor) -> Tensor:
        """Return the factor of the focal loss with soft targets."""
        return torch.where(matched, self.alpha, 1 - self.alpha) * (t - p).abs() ** self.gamma


def is_matched_label(loss: object) -> TypeGuard[MatchedLabel]:
    """Return whether a class loss makes its targets of the IoU of matched boxes."""
    return isinstance(loss, MatchedLabel)


def labels_of(loss: object, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the targets (B,N,C) of the cross entropy in a loss that is called with ``targets``."""
    return loss.labels(logits.sigmoid(), targets) if isinstance(loss, MatchedLabel) else targets
