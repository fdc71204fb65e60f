"""VarifocalNet's losses (Zhang et al. 2021): varifocal loss of the IACS, GIoU loss of initial and refined boxes.

The class target of a positive is the IoU of its refined box with its object, the IoU-aware classification score (IACS,
section 3.1). The same IoU weights the GIoU loss of the refined box. The authors' code weights the loss of the initial
box by the IoU of that box and divides each box loss by the sum of its IoUs. The article (eq. 3) weights both by the IoU
of the refined box and divides both by the number of positives. The class loss is divided by that number in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from poise import losses
from poise.boxes import EPS, giou, iou
from poise.criteria.object_balance import balance_objects
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import masked_sums, normalizer, num_positives
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, Predictions, RefinedPredictions

BoxNormalizer = Literal["iou", "positives"]
WeightingBox = Literal["initial", "refined"]


@dataclass(frozen=True)
class VarifocalCriterion:
    """Class loss, and losses of the initial and the refined box.

    Args:
        class_loss: elementwise loss of logits and targets (B,N,C).
        hard_labels: for the plain focal loss: class targets of positives are 1, and ignored priors do not count.
            Otherwise all priors count, those in the padding included, as in the authors' code.
        initial_weight: weight of the loss of the initial box (lambda_0).
        refined_weight: weight of the loss of the refined box (lambda_1).
        class_weight: weight of the class loss.
        box_normalizer: divisor of each box loss: ``iou``, the sum of the IoUs that weight it (code), or ``positives``,
            the number of positives (article).
        initial_iou: box whose IoU weights the loss of the initial box: ``initial`` (code) or ``refined`` (article).
        object_balance: 0: an object counts as often as it has positives; 1: all objects count the same
            (``poise.criteria.object_balance``).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.varifocal
    hard_labels: bool = False
    initial_weight: float = 1.5
    refined_weight: float = 2.0
    class_weight: float = 1.0
    box_normalizer: BoxNormalizer = "iou"
    initial_iou: WeightingBox = "initial"
    object_balance: float = 0.0

    def __post_init__(self) -> None:
        if min(self.class_weight, self.initial_weight, self.refined_weight) < 0:
            raise ValueError(f"{self}: weights of losses cannot be negative")
        for name, known in (("box_normalizer", BoxNormalizer), ("initial_iou", WeightingBox)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name}='{getattr(self, name)}': one of {', '.join(get_args(known))}")

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and, with refined boxes, ``loss_bbox_rf``."""
        objects, targets = assignment.boxes(truth), self.targets(predictions, assignment, truth)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
        box_loss = 1 - giou(predictions.boxes, objects), targets.box_weights
        if not isinstance(predictions, RefinedPredictions):
            return dict(zip(("loss_cls", "loss_bbox"), masked_sums(class_loss, box_loss), strict=True))
        initial = predictions.initial_boxes
        weighting = initial if self.initial_iou == "initial" else predictions.boxes
        initial_weights = self.initial_weight * self._iou_weights(weighting, objects, assignment, truth)
        sums = masked_sums(class_loss, (1 - giou(initial, objects), initial_weights), box_loss)
        return dict(zip(("loss_cls", "loss_bbox", "loss_bbox_rf"), sums, strict=True))

    def targets(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets (the IACS) and the weights of the losses of classes and refined boxes."""
        objects = assignment.boxes(truth)
        label = 1.0 if self.hard_labels else iou(predictions.boxes.detach(), objects).clamp(min=EPS)
        counted = ~assignment.ignored if self.hard_labels else torch.ones_like(assignment.ignored)
        refined = isinstance(predictions, RefinedPredictions)
        box_weight = self.refined_weight if refined else self.initial_weight
        class_weights = counted / num_positives(assignment) * self.class_weight
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], label),
            class_weights=balance_objects(class_weights, assignment, truth, self.object_balance),
            box_weights=box_weight * self._iou_weights(predictions.boxes, objects, assignment, truth),
        )

    def weights(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses of classes and refined boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)

    def _iou_weights(self, boxes: Tensor, objects: Tensor, assignment: Assignment, truth: GroundTruth) -> Tensor:
        """Return the IoU of each positive's box with its object, divided by ``box_normalizer``, (B,N)."""
        weight = iou(boxes.detach(), objects).clamp(min=EPS) * assignment.positive
        balanced = balance_objects(weight, assignment, truth, self.object_balance)
        return balanced / (normalizer(weight.sum()) if self.box_normalizer == "iou" else num_positives(assignment))
