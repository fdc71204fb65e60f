"""Losses of set prediction (DETR: Carion et al. 2020, eq. 2), with the focal loss as in Deformable DETR.

The class target of a query is its object's class, or background. Matched queries also have the L1 loss of normalized
boxes and the GIoU loss of boxes in pixels. One call computes the losses of all decoder layers, each divided by its own
number of positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import cxcywh_to_xyxy, giou, iou, normalize_boxes
from poise.criteria.protocol import Targets, loss_weights_from_logits
from poise.losses import hard_label, normalizer
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth, QueryPredictions


def count_on_this_rank(count: Tensor) -> Tensor:
    """Return the number of positives of this rank, at least 1 (of the class loss of Conditional DETR and DAB-DETR)."""
    return count.clamp(min=1)


def iou_of_normalized_boxes(predictions: QueryPredictions, assignment: Assignment, objects: Tensor) -> Tensor:
    """Return the IoU (B,N) of each query's normalized box with that of its object, without gradient.

    Unions are clamped to at least 1e-6 of the image.
    """
    return iou(cxcywh_to_xyxy(predictions.normalized_boxes.detach()), cxcywh_to_xyxy(objects))


@dataclass(frozen=True)
class SetCriterion:
    """Class, L1 and GIoU losses, divided by the number of positives.

    Args:
        class_loss: elementwise loss of logits and targets (B,N,C).
        soft_label: class target of positives in [0,1], from predictions, assignment and the objects' normalized boxes.
        class_weight: weight of the class loss.
        box_weight: weight of the L1 loss.
        giou_weight: weight of the GIoU loss.
        class_normalizer: from the number of positives of each layer (L,) to the divisors of the class losses; None:
            those of the box losses (``normalizer``).
        per_object: divide by the number of objects instead of positives (one-to-many supervision of MS-DETR).
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QueryPredictions, Assignment, Tensor], Tensor | float] = hard_label
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    class_normalizer: Callable[[Tensor], Tensor] | None = None
    per_object: bool = False

    def __call__(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of one layer."""
        return self.layer_losses(predictions, assignment, truth, ("{}",))

    def layer_losses(
        self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the losses of stacked layers; ignored queries do not count.

        Args:
            predictions: of L stacked layers, (L*B,N,...).
            assignment: of all layers.
            truth: of L*B images.
            names: a format for the names of each layer's losses, for example ``"d0.{}"`` for ``d0.loss_cls``.
        """
        boxes, layers = assignment.boxes(truth), len(names)
        normalized_boxes = normalize_boxes(boxes, truth.sizes)
        targets = self._layer_targets(predictions, assignment, truth, normalized_boxes, layers)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        l1_loss = (predictions.normalized_boxes - normalized_boxes).abs().sum(2)
        giou_loss = 1 - giou(predictions.boxes, boxes)
        terms = {
            "loss_cls": _layer_sums(class_loss, targets.class_weights, layers),
            "loss_bbox": _layer_sums(l1_loss, targets.box_weights, layers) * self.box_weight,
            "loss_iou": _layer_sums(giou_loss, targets.box_weights, layers) * self.giou_weight,
        }
        return {name.format(term): value[i] for term, value in terms.items() for i, name in enumerate(names)}

    def targets(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """Return class targets and weights of one layer; box weights exclude the weights of the two box losses."""
        normalized_boxes = normalize_boxes(assignment.boxes(truth), truth.sizes)
        return self._layer_targets(predictions, assignment, truth, normalized_boxes, layers=1)

    def _layer_targets(
        self,
        predictions: QueryPredictions,
        assignment: Assignment,
        truth: GroundTruth,
        normalized_boxes: Tensor,
        layers: int,
    ) -> Targets:
        """Return ``targets`` of stacked layers, given the normalized boxes (L*B,N,4) of the assigned objects."""
        soft_label = self.soft_label(predictions, assignment, normalized_boxes)
        class_targets = assignment.class_targets(truth, predictions.logits.shape[2], soft_label)
        counted = truth.valid if self.per_object else assignment.positive
        count, batch = counted.float().reshape(layers, -1).sum(1), len(class_targets) // layers
        divisor = normalizer(count)
        class_divisor = divisor if self.class_normalizer is None else self.class_normalizer(count)
        class_scale = (self.class_weight / class_divisor).repeat_interleave(batch)[:, None]
        box_scale = (1 / divisor).repeat_interleave(batch)[:, None]
        return Targets(class_targets, ~assignment.ignored * class_scale, assignment.positive * box_scale)

    def weights(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """Return how much each query of one layer counts.

        The box weight is that of the GIoU loss; that of the L1 loss is ``box_weight / giou_weight`` times as large.
        """
        targets = self.targets(predictions, assignment, truth)
        targets = targets._replace(box_weights=targets.box_weights * self.giou_weight)
        return loss_weights_from_logits(targets, self.class_loss, predictions.logits)


def _layer_sums(loss: Tensor, weight: Tensor, layers: int) -> Tensor:
    """Return the weighted sum of each layer (L,) over the queries with a nonzero weight (see ``masked_sum``)."""
    return (loss.where(weight != 0, 0.0) * weight).reshape(layers, -1).sum(1)
