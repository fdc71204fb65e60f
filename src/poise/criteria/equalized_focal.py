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
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.criteria.class_totals import ClassTotals
from poise.criteria.protocol import Targets
from poise.distributed import mean_over_ranks
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, Predictions

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


class _EqualizedFocal(torch.autograd.Function):
    """The loss of x = z for negatives and x = -z for positives, with its derivative s^e (s - e (1 - s) ln(1 - s)).

    s = sigmoid(x) = 1 - p_t, and e is the exponent. The derivative serves the backward pass and the totals.
    """

    @staticmethod
    def forward(
        context: Any, logits: Tensor, targets: Tensor, focus: Tensor, alpha: float, gamma: float
    ) -> tuple[Tensor, Tensor]:
        sign, exponent = 1 - 2 * targets, gamma + focus
        signed = logits * sign
        entropy = softplus(signed)  # -ln p_t
        log_error = signed - entropy
        weight = (log_error * exponent).exp() * ((1 - alpha) + (2 * alpha - 1) * targets) * (exponent / gamma)
        error = log_error.exp()
        size = weight * (error + exponent * (1 - error) * entropy)
        context.save_for_backward(size * sign)
        context.mark_non_differentiable(size)
        return weight * entropy, size

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (derivative,) = context.saved_tensors
        return gradients[0] * derivative, None, None, None, None


def equalized_focal(
    logits: Tensor, targets: Tensor, focus: Tensor, *, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return the loss of binary targets with the added focus (C,), and its absolute derivative by logits, (B,N,C)."""
    loss, size = _EqualizedFocal.apply(logits, targets, focus, alpha, gamma)
    return loss, size


class FocalCriterion(Protocol):
    """A criterion with an elementwise focal loss of logits."""

    class_loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]: ...

    def targets(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> Targets: ...

    def weights(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> LossWeights: ...


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

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return the losses of the criterion, and accumulate the gradients for the next step."""
        sizes: list[Tensor] = []
        losses = self._with(sizes)(predictions, assignment, truth)
        with torch.no_grad():
            labels, weights, _ = self.targets(predictions, assignment, truth)
            columns = [(sizes[0] * part).flatten(0, 1) for part in (labels, 1 - labels)]
            gradients = torch.stack([weights.flatten().to(column.dtype) @ column for column in columns], 1)
        self.gradients.add(gradients, mean_over_ranks)
        return losses

    def targets(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and the weights of the elementwise losses."""
        return self.criterion.targets(predictions, assignment, truth)

    def weights(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        return self._with([]).weights(predictions, assignment, truth)

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the accumulated gradients of each class, gamma_c, and the weight gamma_c / gamma."""
        positive, negative = self.gradients.totals.unbind(1)
        focus = self.gamma + self.loss.added_focus(self.gradients.totals)
        return {
            "positive_gradient": positive,
            "negative_gradient": negative,
            "focusing_factor": focus,
            "loss_factor": focus / self.gamma,
        }

    def _with(self, sizes: list[Tensor]) -> FocalCriterion:
        """Return the criterion with this loss, which appends the absolute derivatives (B,N,C) to ``sizes``."""
        focus = self.loss.added_focus(self.gradients.totals)

        def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
            loss, size = equalized_focal(logits, targets, focus, alpha=self.alpha, gamma=self.gamma)
            sizes.append(size)
            return loss

        criterion: FocalCriterion = replace(self.criterion, class_loss=class_loss)  # type: ignore[type-var]
        return criterion
