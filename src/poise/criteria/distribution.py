"""GFL's losses: quality focal loss (QFL), GIoU loss and distribution focal loss (DFL), and NanoDet-Plus's and GFLv2's.

The class target of a positive is the IoU of its predicted box with its object (Li et al. 2020, section 3.1). Box losses
are weighted by the best class score of the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise import losses
from poise.boxes import encode_distances, giou, iou
from poise.criteria.matched_labels import MatchedLabel, labels_of
from poise.criteria.protocol import Targets, loss_weights
from poise.losses import masked_sums, normalizer, num_positives, num_positives_clamped
from poise.protocols import LossWeights
from poise.structures import (
    Assignment,
    DistributionPredictions,
    GroundTruth,
    JointDistributionPredictions,
    Predictions,
)

SoftLabel = Callable[[DistributionPredictions, Assignment, Tensor], Tensor | float]
ClassLoss = Callable[[Any, Tensor], Tensor]  # of predictions and class targets (B,N,C)


def iou_label(predictions: Predictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """Return the IoU (B,N) of the predicted box of each prior with the box (B,N,4) of its object, without gradient."""
    return iou(predictions.boxes.detach(), objects)


def quality_label(predictions: DistributionPredictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """Return the quality (B,N) of the assignment: in NanoDet-Plus the IoU of the guide's box."""
    return assignment.quality


def qfl_of_logits(predictions: Predictions, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss of p = sigmoid(logits)."""
    return losses.quality_focal(predictions.logits, targets, beta)


def focal_of_logits(predictions: Predictions, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of p = sigmoid(logits)."""
    return losses.focal(predictions.logits, targets, alpha, gamma)


def vfl_of_logits(
    predictions: Predictions, targets: Tensor, alpha: float = 0.75, gamma: float = 2.0, *, iou_weighted: bool = True
) -> Tensor:
    """Return the varifocal loss of p = sigmoid(logits)."""
    return losses.varifocal(predictions.logits, targets, alpha, gamma, iou_weighted=iou_weighted)


def qfl_of_joint_scores(predictions: JointDistributionPredictions, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss of p = sigmoid(logits) * sigmoid(quality)."""
    return losses.joint_quality_focal(predictions.logits, predictions.quality[..., None], targets, beta)


@dataclass(frozen=True)
class DistributionCriterion:
    """Class, box and distribution losses.

    Args:
        box_weight: weight of the GIoU loss.
        distribution_weight: weight of the distribution focal loss.
        margin: distance targets are clamped to this much below the last bin.
        soft_label: class target of positives in [0,1], from predictions, assignment and the boxes of the objects.
        class_loss: elementwise loss (B,N,C) of predictions and class targets, or a ``MatchedLabel`` of their logits.
        count: normalizer of the class loss, a number of positives.
        class_loss_name: name of the class loss in the original code.
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    box_weight: float = 2.0
    distribution_weight: float = 0.25
    margin: float = 0.1
    soft_label: SoftLabel = iou_label
    class_loss: ClassLoss | MatchedLabel = qfl_of_logits
    count: Callable[[Assignment], Tensor] = num_positives_clamped
    class_loss_name: str = "loss_cls"
    object_balance: float = 0.0

    def __call__(
        self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Return the class loss, ``loss_bbox`` and ``loss_dfl``."""
        objects, targets = assignment.boxes(truth), self.targets(predictions, assignment, truth)
        class_loss = self._class_loss(predictions, targets.class_targets).sum(2)
        distances = encode_distances(predictions.priors.centers, objects) / predictions.priors.strides[:, None]
        distances = torch.nan_to_num(distances).clamp(0, predictions.bins.shape[-1] - 1 - self.margin)
        distribution_loss = losses.distribution_focal(predictions.bins, distances).mean(2)
        box_loss = 1 - giou(predictions.boxes, objects)
        class_sum, box_sum, distribution_sum = masked_sums(
            (class_loss, targets.class_weights),
            (box_loss, targets.box_weights),
            (distribution_loss, targets.box_weights),
        )
        return {
            self.class_loss_name: class_sum,
            "loss_bbox": box_sum * self.box_weight,
            "loss_dfl": distribution_sum * self.distribution_weight,
        }

    def targets(self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and weights; the box weights exclude the weights of the two box losses."""
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        weight = predictions.threshold_scores().detach().amax(2) * assignment.positive
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / self.count(assignment),
            box_weights=weight / normalizer(weight.sum()),
        ).balanced(assignment, truth, self.object_balance)

    def weights(self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and boxes (DFL is proportional to the latter)."""
        targets = self.targets(predictions, assignment, truth)
        targets = targets._replace(box_weights=targets.box_weights * self.box_weight)
        class_loss = self._class_loss(predictions, targets.class_targets)
        targets = targets._replace(class_targets=labels_of(self.class_loss, predictions.logits, targets.class_targets))
        if isinstance(predictions, JointDistributionPredictions):
            entropy = qfl_of_joint_scores(predictions, targets.class_targets, beta=0.0)  # the cross entropy
        else:
            entropy = qfl_of_logits(predictions, targets.class_targets, beta=0.0)
        return loss_weights(targets, class_loss, entropy)

    def _class_loss(self, predictions: DistributionPredictions, targets: Tensor) -> Tensor:
        """Return the elementwise class loss (B,N,C)."""
        if isinstance(self.class_loss, MatchedLabel):
            return self.class_loss(predictions.logits, targets)
        return self.class_loss(predictions, targets)


def nanodet_plus_criterion() -> DistributionCriterion:
    """Return the criterion of NanoDet-Plus: soft labels of the guide, class loss divided by the number of positives."""
    return DistributionCriterion(soft_label=quality_label, count=num_positives, class_loss_name="loss_qfl")


def gflv2_criterion() -> DistributionCriterion:
    """Return the criterion of GFLv2 (Li et al. 2021): GFL's losses of the product of class score and quality."""
    return DistributionCriterion(class_loss=qfl_of_joint_scores)
