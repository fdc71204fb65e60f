"""Equalized focal loss for one-stage detectors (EFL: Li et al. 2022, arXiv 2201.02593, section 3).

Each class c has a focusing factor gamma_c = gamma + s (1 - g_c) and the weight gamma_c / gamma: the loss is
-alpha_t (gamma_c / gamma) (1 - p_t)^gamma_c ln p_t. g_c in [0,1] is the ratio of the accumulated gradients of positives
and of negatives with respect to the logits of the class, 1 at the start. gamma and alpha are those of the detector's
focal loss; with g = 1, the loss is the focal loss. As in the published code, the gradients are those of the loss after
its normalization, of all processes, and the weights of a step come from the steps before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from poise.criteria.class_totals import ClassTotals
from poise.criteria.protocol import Targets
from poise.losses import binary_cross_entropy
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth

SMALL = 1e-10  # added to the divisor, as in the published code


@dataclass(frozen=True)
class EqualizedFocal:
    """The focusing factors of equalized focal loss.

    Args:
        scale: s, by how much the focusing factor of a class without gradients of positives exceeds gamma.
    """

    scale: float = 8.0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"{self}: the scale is not below 0")

    @torch.no_grad()
    def added_focus(self, totals: Tensor) -> Tensor:
        """Return s (1 - g) of each class (C,), from the totals of the gradients of positives and negatives (C,2)."""
        positive, negative = totals.unbind(1)
        ratio = torch.where(totals.sum(1) > 0, (positive / (negative + SMALL)).clamp(0, 1), 1.0)
        return self.scale * (1 - ratio)


def equalized_focal(logits: Tensor, targets: Tensor, focus: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return the loss (B,N,C) of binary targets, with the added focus (C,)."""
    probability = logits.sigmoid()
    error = probability + targets - 2 * probability * targets  # 1 - p_t
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * (1 + focus / gamma)
    return weight * error ** (gamma + focus) * binary_cross_entropy(logits, targets)


def gradient_size(logits: Tensor, targets: Tensor, focus: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return the absolute derivative of ``equalized_focal`` with respect to the logits, (B,N,C).

    alpha_t (gamma_c / gamma) (1 - p_t)^gamma_c (1 - p_t - gamma_c p_t ln p_t)
    """
    probability = logits.sigmoid()
    error, exponent = probability + targets - 2 * probability * targets, gamma + focus
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * (exponent / gamma) * error**exponent
    return weight * (error + exponent * (1 - error) * binary_cross_entropy(logits, targets))


class FocalCriterion(Protocol):
    """A criterion with an elementwise focal loss of logits."""

    class_loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]: ...

    def targets(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> Targets: ...

    def weights(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> LossWeights: ...


@dataclass(frozen=True, eq=False)
class EqualizedFocalCriterion:
    """A criterion with equalized focal loss instead of its focal loss.

    Args:
        criterion: all other losses, the targets and the normalizers.
        loss: the focusing factors.
        gradients: accumulated gradients of positives and of negatives, (C,2).
        alpha, gamma: those of the focal loss.
    """

    criterion: FocalCriterion
    loss: EqualizedFocal
    gradients: ClassTotals
    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return the losses of the criterion, and accumulate the gradients for the next step."""
        focus = self.loss.added_focus(self.gradients.totals)
        losses = self._with(focus)(predictions, assignment, truth)
        self.gradients.add(self._gradients(predictions, assignment, truth, focus))
        return losses

    def targets(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        return self.criterion.targets(predictions, assignment, truth)

    def weights(self, predictions: Any, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return self._with(self.loss.added_focus(self.gradients.totals)).weights(predictions, assignment, truth)

    def _with(self, focus: Tensor) -> FocalCriterion:
        loss = partial(equalized_focal, focus=focus, alpha=self.alpha, gamma=self.gamma)
        criterion: FocalCriterion = replace(self.criterion, class_loss=loss)  # type: ignore[type-var]
        return criterion

    @torch.no_grad()
    def _gradients(self, predictions: Any, assignment: Assignment, truth: GroundTruth, focus: Tensor) -> Tensor:
        """Return the gradients of positives and of negatives in this step, (C,2)."""
        labels, weights, _ = self.targets(predictions, assignment, truth)
        size = gradient_size(predictions.logits, labels, focus, alpha=self.alpha, gamma=self.gamma)
        size = torch.where(weights[..., None] > 0, size, 0.0) * weights[..., None]
        return torch.stack(((size * labels).sum((0, 1)), (size * (1 - labels)).sum((0, 1))), 1)
