"""Faster R-CNN's losses of both stages, of the sampled priors (Girshick 2015; Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from poise import losses
from poise.boxes import DeltaCoder
from poise.criteria.protocol import Targets
from poise.losses import masked_sums
from poise.protocols import LossWeights
from poise.structures import Assignment, DeltaPredictions, GroundTruth, RegionPredictions

ElementLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ProposalCriterion:
    """Losses of the region proposal network: objectness and offsets.

    Both are divided by the number of sampled anchors (at least one positive and one negative per image) of each rank,
    as in the original codes.
    """

    coder: DeltaCoder = field(default_factory=DeltaCoder)
    offset_loss: ElementLoss = losses.l1

    def __call__(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_rpn_cls`` and ``loss_rpn_bbox``."""
        targets = self.targets(predictions, assignment, truth)
        logits = predictions.logits[..., :1]
        class_loss = binary_cross_entropy_with_logits(logits, targets.class_targets, reduction="none").sum(2)
        offsets = offset_targets(self.coder, predictions.priors.boxes, assignment, truth)
        offset_loss = self.offset_loss(predictions.deltas, offsets).sum(2)
        sums = masked_sums((class_loss, targets.class_weights), (offset_loss, targets.box_weights))
        return dict(zip(("loss_rpn_cls", "loss_rpn_bbox"), sums, strict=True))

    def targets(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return the targets and weights of the sampled anchors; the only class is to be an object."""
        positive = assignment.positive.float()
        count = sum(kind.sum(1).clamp(min=1).sum() for kind in (assignment.positive, assignment.negative))
        return Targets(
            class_targets=positive[..., None],
            class_weights=(~assignment.ignored).float() / count,
            box_weights=positive / count,
        )

    def weights(self, predictions: DeltaPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each sampled anchor counts in the losses."""
        labels, class_weights, box_weights = self.targets(predictions, assignment, truth)
        return LossWeights(class_weights[..., None] * labels, class_weights[..., None] * (1 - labels), box_weights)


@dataclass(frozen=True)
class RegionCriterion:
    """Losses of the second stage: cross entropy with background, and the offsets of the object's class.

    Both are divided by the number of sampled regions.
    """

    coder: DeltaCoder
    offset_loss: ElementLoss = losses.l1
    box_weight: float = 1.0

    def __call__(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``."""
        return self.losses(predictions, assignment, truth, self.class_loss(predictions, assignment, truth))

    def losses(
        self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth, class_loss: Tensor
    ) -> dict[str, Tensor]:
        """Return ``loss_cls`` and ``loss_bbox``, given the class loss of each region (B,S)."""
        targets = self.targets(predictions, assignment, truth)
        box_loss = self.box_loss(predictions, assignment, truth)
        sums = masked_sums((class_loss, targets.class_weights), (box_loss, targets.box_weights))
        return dict(zip(("loss_cls", "loss_bbox"), sums, strict=True))

    def targets(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return the targets and weights of the sampled regions."""
        sampled = (~assignment.ignored).float()
        count = sampled.sum().clamp(min=1)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2]),
            class_weights=sampled / count,
            box_weights=assignment.positive.float() * (self.box_weight / count),
        )

    def weights(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each region counts, at the object's class or as background; no class is a negative."""
        labels, class_weights, box_weights = self.targets(predictions, assignment, truth)
        positive = class_weights[..., None] * labels
        return LossWeights(positive, torch.zeros_like(positive), box_weights, class_weights * assignment.negative)

    def class_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the cross entropy of each region (B,S), by which online hard example mining ranks."""
        logits = predictions.all_logits()
        label = torch.where(assignment.positive, assignment.labels(truth), logits.shape[-1] - 1)
        return cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").reshape(label.shape)

    def box_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the offset loss of each region (B,S)."""
        offsets = offset_targets(self.coder, predictions.priors.boxes, assignment, truth)
        return self.offset_loss(predictions.deltas_of(assignment.labels(truth)), offsets).sum(2)


@dataclass(frozen=True)
class RegionBoxCriterion(RegionCriterion):
    """``RegionCriterion`` with a loss between decoded boxes instead of offsets (Co-DETR)."""

    decoded_loss: ElementLoss = losses.giou

    def box_loss(self, predictions: RegionPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the box loss of each region (B,S)."""
        deltas = predictions.deltas_of(assignment.labels(truth))
        return self.decoded_loss(self.coder.decode(predictions.priors.boxes, deltas), assignment.boxes(truth))


def offset_targets(coder: DeltaCoder, priors: Tensor, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """Return offset targets (B,S,4), 0 where not positive, since a degenerate prior would make them infinite."""
    offsets = coder.encode(priors, assignment.boxes(truth))
    return torch.where(assignment.positive[..., None], offsets, 0.0)
