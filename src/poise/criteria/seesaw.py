"""Seesaw loss for the second stage (Wang et al. 2021, arXiv 2008.10032, section 3).

The softmax of an object of class i has the factor S_ij = M_ij C_ij at the exponential of every other class j. The
mitigation factor M_ij = min(1, N_j / N_i)^p reduces the penalty of a class with fewer samples N_j so far. The
compensation factor C_ij = max(1, s_j / s_i)^q increases it again where the score s_j exceeds that of the own class.

As in the published code, classes and background are separate: the softmax has the classes alone and is trained on
positives, and a sigmoid, trained on all regions, separates objects from background. Scores are the products. N counts
sampled regions, those of the current step included. Deviations from that code: the background has one logit instead of
two (a softmax of two logits is the sigmoid of their difference), the samples of all processes count, and neither the
classifier nor its features are normalized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.criteria.class_totals import ClassTotals
from poise.criteria.region import RegionCriterion
from poise.losses import binary_cross_entropy
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, RegionPredictions


@dataclass(frozen=True)
class Seesaw:
    """The factors of Seesaw loss.

    Args:
        p: exponent of the mitigation factor; 0: none.
        q: exponent of the compensation factor; 0: none.
        least_score: lower bound of the score of the own class in the compensation factor.
    """

    p: float = 0.8
    q: float = 2.0
    least_score: float = 0.01

    def __post_init__(self) -> None:
        if min(self.p, self.q) < 0 or not 0 < self.least_score <= 1:
            raise ValueError(f"{self}: p and q are not below 0, and least_score lies in (0, 1]")

    @torch.no_grad()
    def log_factors(self, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """Return ln S (B,S,C) of logits (B,S,C), for objects of the classes ``labels`` (B,S) and counts (C,)."""
        count = counts.clamp(min=1).to(logits.dtype).log()
        score = logits.log_softmax(-1)
        own = score.gather(-1, labels[..., None]).clamp(min=math.log(self.least_score))
        mitigation = self.p * (count - count[labels][..., None]).clamp(max=0)
        return mitigation + self.q * (score - own).clamp(min=0)


@dataclass(frozen=True, eq=False)
class SeesawCriterion:
    """The losses of the second stage with Seesaw loss; the head returns ``ObjectnessRegionPredictions``.

    Args:
        criterion: the losses of boxes, the targets and the normalizers.
        loss: the factors.
        counts: sampled regions of each class so far, (C,1).
    """

    criterion: RegionCriterion
    loss: Seesaw
    counts: ClassTotals

    def __call__(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``, and count the regions of each class."""
        classes = predictions.logits.shape[2]
        new = torch.zeros(classes, dtype=torch.long, device=predictions.logits.device)
        positive = assignment.positive.flatten().long()
        self.counts.add(new.scatter_add(0, assignment.labels(truth).flatten(), positive)[:, None])
        class_loss = self.class_loss(predictions, assignment, truth)
        return self.criterion.losses(predictions, assignment, truth, class_loss)

    def weights(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each region counts, without the factors, which change logits and no weights."""
        return self.criterion.weights(predictions, assignment, truth)

    def class_statistics(self) -> dict[str, Tensor]:
        """Return the samples of each class, and its mitigation factor for objects of the most frequent class."""
        counts = self.counts.totals[:, 0]
        count = counts.clamp(min=1).double()
        return {"samples": counts, "mitigation_factor": (count / count.max()) ** self.loss.p}

    def class_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the class loss of each region (B,S), by which online hard example mining ranks."""
        labels, logits = assignment.labels(truth), predictions.logits
        logits = logits + self.loss.log_factors(logits, labels, self.counts.totals[:, 0])
        of_classes = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").reshape(labels.shape)
        of_objects = binary_cross_entropy(predictions.background, (~assignment.positive).to(logits.dtype))
        return torch.where(assignment.positive, of_classes, 0.0) + of_objects
