"""Initial boxes of heads that predict two boxes, with a criterion that reads the refined boxes alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from poise.criteria.dual_weighting import box_loss
from poise.losses import normalizer
from poise.protocols import Criterion, LossFunction, LossWeights
from poise.structures import GroundTruth, PairWeights, RefinedPredictions


@dataclass(frozen=True)
class InitialBoxCriterion:
    """GIoU loss of the initial boxes, with the pair weights of the refined ones, divided by the number of objects."""

    weight: float = 1.0

    def __call__(
        self, predictions: RefinedPredictions, assignment: PairWeights, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return ``loss_bbox_initial``."""
        scale = self.weight / normalizer(truth.valid.sum())
        return {"loss_bbox_initial": box_loss(predictions.initial_boxes, truth, assignment.pairs()) * scale}


@dataclass(frozen=True)
class WithInitialBoxes:
    """The losses of ``criterion``, which reads the refined boxes, and of ``initial``, which reads the initial ones."""

    criterion: Criterion
    initial: LossFunction

    def __call__(
        self, predictions: RefinedPredictions, assignment: PairWeights, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return the loss terms of both."""
        return {
            **self.criterion(predictions, assignment, truth),
            **self.initial(predictions, assignment, truth),
        }

    def weights(self, predictions: RefinedPredictions, assignment: PairWeights, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and refined boxes."""
        return self.criterion.weights(predictions, assignment, truth)
