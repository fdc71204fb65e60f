"""GFL's losses: quality focal, GIoU and distribution focal loss (Li et al. 2020); NanoDet-Plus's and GFLv2's forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise import losses
from poise.boxes import encode_distances, iou
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    loss_weights,
    masked_sum,
    normalizer,
    num_positives,
    num_positives_clamped,
)
from poise.structures import (
    Assignment,
    DistributionPredictions,
    GroundTruth,
    JointDistributionPredictions,
    Predictions,
)

SoftLabel = Callable[[DistributionPredictions, Assignment, Tensor], Tensor]
ClassLoss = Callable[[Any, Tensor, float], Tensor]  # of predictions, targets (B,N,C) and beta


def iou_label(predictions: Predictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """The IoU of each place's box with its object (B,N,4): the score targets is the quality of one's own box."""
    return iou(predictions.boxes.detach(), objects)


def quality_label(predictions: DistributionPredictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """The quality that the assigner saw, here that of the guide's box."""
    return assignment.quality


def qfl_of_logits(predictions: Predictions, targets: Tensor, beta: float) -> Tensor:
    """Quality focal loss where classes alone are the score."""
    return losses.quality_focal(predictions.logits, targets, beta)


def qfl_of_joint_scores(predictions: JointDistributionPredictions, targets: Tensor, beta: float) -> Tensor:
    """Quality focal loss where the score is the product of class and quality."""
    return losses.joint_quality_focal(predictions.logits, predictions.quality[..., None], targets, beta)


@dataclass(frozen=True)
class DistributionCriterion:
    """Classes are taught the ``soft_label`` of their place; boxes are weighted by its best class score."""

    box_weight: float = 2.0
    distribution_weight: float = 0.25
    beta: float = 2.0  # of the quality focal loss
    margin: float = 0.1  # distance targets stay this much below the last bin
    soft_label: SoftLabel = iou_label
    class_loss: ClassLoss = qfl_of_logits
    count: Callable[[Assignment], Tensor] = num_positives_clamped  # what the class loss is divided by
    class_loss_name: str = "loss_cls"  # its name in the original

    def __call__(
        self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects, targets = assignment.boxes(truth), self.targets(predictions, assignment, truth)
        distribution_loss = masked_sum(self._distribution_loss(predictions, objects), targets.box_weights)
        return {
            self.class_loss_name: masked_sum(
                self.class_loss(predictions, targets.class_targets, self.beta).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(losses.giou(predictions.boxes, objects), targets.box_weights) * self.box_weight,
            "loss_dfl": distribution_loss * self.distribution_weight,
        }

    def targets(self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts (``boxes`` before the weights of its two terms)."""
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        weight = predictions.threshold_scores().detach().amax(2) * assignment.positive
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / self.count(assignment),
            box_weights=weight / normalizer(weight.sum()),
        )

    def weights(self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and of boxes (that of distributions is in proportion)."""
        targets = self.targets(predictions, assignment, truth)
        targets = targets._replace(box_weights=targets.box_weights * self.box_weight)
        loss = self.class_loss(predictions, targets.class_targets, self.beta)
        return loss_weights(
            targets, loss, self.class_loss(predictions, targets.class_targets, 0.0)
        )  # beta 0: cross entropy

    def _distribution_loss(self, predictions: DistributionPredictions, objects: Tensor) -> Tensor:
        """Mean over the four sides, (B,N)."""
        priors = predictions.priors
        distances = encode_distances(priors.centers, objects) / priors.strides[:, None]
        last = predictions.bins.shape[-1] - 1
        wanted = torch.nan_to_num(distances).clamp(0, last - self.margin)
        return losses.distribution_focal(predictions.bins, wanted).mean(2)


def nanodet_plus_criterion() -> DistributionCriterion:
    """As NanoDet-Plus: the soft label is the guide's, and the class loss is divided by the positives of the batch."""
    return DistributionCriterion(soft_label=quality_label, count=num_positives, class_loss_name="loss_qfl")


def gflv2_criterion() -> DistributionCriterion:
    """As GFLv2 (Li et al. 2021): GFL's losses of the product of class and quality."""
    return DistributionCriterion(class_loss=qfl_of_joint_scores)
