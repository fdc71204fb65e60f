"""Faster R-CNN's losses of its two stages, over sampled places (Girshick 2015; Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import LossWeights, Targets, masked_sum
from poise.structures import Assignment, DeltaPredictions, GroundTruth, RegionPredictions

ElementLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ProposalCriterion:
    """Objectness and offsets, both divided by the sampled anchors (at least one of each kind an image).

    The division is each rank's own, as in the originals.
    """

    coder: DeltaCoder = field(default_factory=DeltaCoder)
    offset_loss: ElementLoss = losses.l1

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        wanted = encoded(self.coder, predictions.priors.boxes, assignment, truth)
        object_loss = binary_cross_entropy_with_logits(
            predictions.logits[..., :1], targets.class_targets, reduction="none"
        )
        offset_loss = self.offset_loss(predictions.deltas, wanted).sum(2)
        return {
            "loss_rpn_cls": masked_sum(object_loss.sum(2), targets.class_weights),
            "loss_rpn_bbox": masked_sum(offset_loss, targets.box_weights),
        }

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What sampled anchors are targets, and how much of it counts."""
        positive = assignment.positive.float()
        count = sum(kind.sum(1).clamp(min=1).sum() for kind in (assignment.positive, assignment.negative))
        return Targets(positive[..., None], (~assignment.ignored).float() / count, positive / count)

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each sampled anchor counts in the losses; there is one class, to be any object."""
        targets = self.targets(predictions, assignment, truth)
        counted = targets.class_weights[..., None]
        return LossWeights(counted * targets.class_targets, counted * (1 - targets.class_targets), targets.box_weights)


@dataclass(frozen=True)
class RegionCriterion:
    """Cross entropy with background, and the offsets of the object's class; both divided by the sampled regions."""

    coder: DeltaCoder
    offset_loss: ElementLoss = losses.l1
    weight: float = 1.0  # of the box term

    def __call__(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        return {
            "loss_cls": masked_sum(self.class_loss(predictions, assignment, truth), targets.class_weights),
            "loss_bbox": masked_sum(self.box_loss(predictions, assignment, truth), targets.box_weights),
        }

    def targets(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What sampled regions are targets, and how much of it counts."""
        counted = (~assignment.ignored).float()
        count = counted.sum().clamp(min=1)
        targets = assignment.class_targets(truth, predictions.logits.shape[2])
        return Targets(targets, counted / count, assignment.positive.float() * (self.weight / count))

    def weights(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each sampled region counts: at the object's class, or as ``background``; no class is a negative."""
        targets = self.targets(predictions, assignment, truth)
        positive = targets.class_weights[..., None] * targets.class_targets
        return LossWeights(
            positive, torch.zeros_like(positive), targets.box_weights, targets.class_weights * assignment.negative
        )

    def class_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Unreduced, (B,S): what online hard example mining ranks by."""
        logits = predictions.all_logits()
        target = torch.where(assignment.positive, assignment.labels(truth), logits.shape[-1] - 1)
        return cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").reshape(target.shape)

    def box_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Unreduced, (B,S)."""
        wanted = encoded(self.coder, predictions.priors.boxes, assignment, truth)
        return self.offset_loss(predictions.deltas_of(assignment.labels(truth)), wanted).sum(2)


@dataclass(frozen=True)
class RegionBoxCriterion(RegionCriterion):
    """The same with a loss between decoded boxes in place of the offsets' (Co-DETR)."""

    decoded_loss: ElementLoss = losses.giou

    def box_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        deltas = predictions.deltas_of(assignment.labels(truth))
        return self.decoded_loss(self.coder.decode(predictions.priors.boxes, deltas), assignment.boxes(truth))


def encoded(coder: DeltaCoder, priors: Tensor, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """Offset targets (B,S,4), 0 where not positive: a degenerate prior would make them infinite."""
    offsets = coder.encode(priors, assignment.boxes(truth))
    return torch.where(assignment.positive[..., None], offsets, 0.0)
