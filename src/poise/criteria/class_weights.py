"""Weights of classes in the classification loss of any criterion.

A criterion sums its classification loss over classes, so the gradient of the loss with weights w_c is that of the loss
without them, multiplied by w_c at the logits of class c. ``ClassWeighted`` multiplies that gradient; normalizers, soft
labels and the box loss do not change, and neither do the values of the losses, which are reported without the weights.
Where a softmax includes the background, the loss of a prior is multiplied by the weight of its class instead; the
background has the weight 1. A quality that multiplies the scores of all classes (TOOD, AutoAssign, GFLv2) is trained
without the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from poise.criteria.region import ProposalCriterion
from poise.protocols import Criterion, LossWeights, class_statistics
from poise.structures import GroundTruth, RegionPredictions, SwitchAtEpoch


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, factor: Tensor) -> Tensor:
        context.save_for_backward(factor)
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = context.saved_tensors
        return gradient * factor, None


def scale_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """Return ``values`` with the gradient multiplied by ``factor``, which is broadcast."""
    scaled: Tensor = _ScaledGradient.apply(values, factor)
    return scaled


class _Wrapped(Criterion, Protocol):
    def layer_losses(self, predictions: Any, assignment: Any, truth: GroundTruth, names: Any) -> dict[str, Tensor]: ...

    def class_loss(self, predictions: Any, assignment: Any, truth: GroundTruth) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ClassWeighted:
    """A criterion whose classification loss has a weight for each class.

    Args:
        criterion: any criterion.
        class_weights: (C,) >= 0.
    """

    criterion: _Wrapped
    class_weights: Tensor

    def __call__(self, predictions: Any, assignment: Any, truth: GroundTruth) -> dict[str, Tensor]:
        """Return the weighted loss terms by name; their values are without the class weights."""
        return self.criterion(self._weighted(predictions, assignment, truth), assignment, truth)

    def layer_losses(self, predictions: Any, assignment: Any, truth: GroundTruth, names: Any) -> dict[str, Tensor]:
        """Return the losses of stacked decoder layers (see ``SetCriterion``)."""
        return self.criterion.layer_losses(self._weighted(predictions, assignment, truth), assignment, truth, names)

    def class_loss(self, predictions: Any, assignment: Any, truth: GroundTruth) -> Tensor:
        """Return the class loss of each region (see ``RegionCriterion``), without the class weights."""
        return self.criterion.class_loss(predictions, assignment, truth)

    def weights(self, predictions: Any, assignment: Any, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts, class weights included."""
        own, factor = self.criterion.weights(predictions, assignment, truth), self._on(predictions.logits)
        pairs = None if own.pairs is None else own.pairs * factor[truth.labels][:, None]
        return replace(own, positive=own.positive * factor, negative=own.negative * factor, pairs=pairs)

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the weight of each class, and what the criterion tracks itself."""
        return {**class_statistics(self.criterion), "class_weight": self.class_weights}

    def _weighted(self, predictions: Any, assignment: Any, truth: GroundTruth) -> Any:
        factor = self._on(predictions.logits)
        if not isinstance(predictions, RegionPredictions):
            return replace(predictions, logits=scale_gradient(predictions.logits, factor))
        of_prior = torch.where(assignment.positive, factor[assignment.labels(truth)], 1.0)
        return replace(
            predictions,
            logits=scale_gradient(predictions.logits, of_prior[..., None]),
            background=scale_gradient(predictions.background, of_prior),
        )

    def _on(self, logits: Tensor) -> Tensor:
        return self.class_weights.to(logits)


def with_class_weights(criterion: Any, class_weights: Tensor) -> Any:
    """Return a criterion, or both of a ``SwitchAtEpoch``, with class weights; one without classes (of proposals) as is.

    Args:
        class_weights: (C,) >= 0.
    """
    if isinstance(criterion, SwitchAtEpoch):
        before, after = (with_class_weights(one, class_weights) for one in (criterion.before, criterion.after))
        return replace(criterion, before=before, after=after)
    return criterion if isinstance(criterion, ProposalCriterion) else ClassWeighted(criterion, class_weights)
