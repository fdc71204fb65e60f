"""AutoAssign's losses (Zhu et al. 2020, eq. 7 and 8, with the normalization of the original code)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.likelihood import CenteredBags
from poise.criteria.bags import bag_losses, bag_weights
from poise.protocols import LossWeights
from poise.structures import GroundTruth, Predictions


@dataclass(frozen=True)
class AutoAssignCriterion:
    """Likelihood of each object's bag, weighted negatives, and a term that keeps the center prior on the priors."""

    positive_weight: float = 0.25
    negative_weight: float = 0.75
    center_weight: float = 0.75

    def __call__(self, predictions: Predictions, assignment: CenteredBags, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_pos``, ``loss_neg`` and ``loss_center``."""
        positive, negative = bag_losses(predictions, assignment, truth)
        mass = (assignment.mass * truth.valid).sum(1)
        center = torch.where(mass > 0, truth.valid.sum(1) / mass.clamp(min=1e-12), 0.0).mean()
        return {
            "loss_pos": self.positive_weight * positive,
            "loss_neg": self.negative_weight * negative,
            "loss_center": self.center_weight * center,
        }

    def weights(self, predictions: Predictions, assignment: CenteredBags, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the likelihood of its bags, and as a negative."""
        return bag_weights(predictions, assignment, truth, self.positive_weight, negative_weight=self.negative_weight)
