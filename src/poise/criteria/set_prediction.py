"""The losses of detection as set prediction (DETR: Carion et al. 2020, eq. 2; the focal form of Deformable-DETR).

Every query is taught its class or that there is nothing, matched ones also their box: L1 between shares of the image
and GIoU between pixels. All layers of a decoder are weighed in one call, each by its own positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import cxcywh_to_xyxy, iou, normalize_boxes
from poise.criteria.protocol import LossWeights, Targets, hard_label, loss_weights_from_logits, normalizer
from poise.structures import Assignment, GroundTruth, QueryPredictions


def count_on_this_rank(count: Tensor) -> Tensor:
    """The count of this rank alone, at least 1 (Conditional-DETR and DAB-DETR divide their classes by it)."""
    return count.clamp(min=1)


def iou_of_normalized_boxes(predictions: QueryPredictions, assignment: Assignment, wanted: Tensor) -> Tensor:
    """The IoU of each query's box (B,N) in shares of the image, where boxes below a millionth of it count as less."""
    return iou(cxcywh_to_xyxy(predictions.normalized_boxes.detach()), cxcywh_to_xyxy(wanted))


@dataclass(frozen=True)
class SetCriterion:
    """Classes, L1 and GIoU, divided by the positives.

    Args:
        soft_label: what positives are targets as their class, of predictions, assignment and the objects' shares.
        class_normalizer: from a layer's number of positives to what its classes are divided by.
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QueryPredictions, Assignment, Tensor], Tensor | float] = hard_label
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    class_normalizer: Callable[[Tensor], Tensor] = normalizer

    def __call__(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        return self.layer_losses(predictions, assignment, truth, ("{}",))

    def layer_losses(
        self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Losses of stacked layers (L*B,N), each under its own name: ``"d0.{}"`` gives ``d0.loss_cls`` and so on.

        ``truth`` is that of L*B images. Ignored queries do not count.
        """
        wanted, objects = normalize_boxes(assignment.boxes(truth), truth.sizes), assignment.boxes(truth)
        layers = len(names)
        targets = self.targets(predictions, assignment, truth, layers)
        class_loss = self.class_loss(predictions.logits, targets.class_targets).sum(2)
        distance = losses.l1(predictions.normalized_boxes, wanted).sum(2)
        overlap_loss = losses.giou(predictions.boxes, objects)
        terms = {
            "loss_cls": _sums(class_loss, targets.class_weights, layers),
            "loss_bbox": _sums(distance, targets.box_weights, layers) * self.box_weight,
            "loss_iou": _sums(overlap_loss, targets.box_weights, layers) * self.giou_weight,
        }
        return {name.format(term): value[i] for term, value in terms.items() for i, name in enumerate(names)}

    def targets(
        self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, layers: int = 1
    ) -> Targets:
        """Return class targets and weights of stacked layers; box weights exclude the weights of their two terms."""
        labels = self.soft_label(predictions, assignment, normalize_boxes(assignment.boxes(truth), truth.sizes))
        targets = assignment.class_targets(truth, predictions.logits.shape[2], labels)
        number = assignment.positive.float().reshape(layers, -1).sum(1)
        classes = (self.class_weight / self.class_normalizer(number)).repeat_interleave(len(targets) // layers)[:, None]
        boxes = (1 / normalizer(number)).repeat_interleave(len(targets) // layers)[:, None]
        return Targets(targets, ~assignment.ignored * classes, assignment.positive * boxes)

    def weights(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each query of one layer counts; of boxes in GIoU (in L1 ``box_weight / giou_weight`` times that)."""
        targets = self.targets(predictions, assignment, truth)
        loss = self.class_loss(predictions.logits, targets.class_targets)
        boxes = targets.box_weights * self.giou_weight
        return loss_weights_from_logits(targets._replace(box_weights=boxes), loss, predictions.logits)


def _sums(loss: Tensor, weight: Tensor, layers: int) -> Tensor:
    """Weighted sum of each layer (L,) over the places that count, whatever stands in the others."""
    return (loss.where(weight != 0, 0.0) * weight).reshape(layers, -1).sum(1)
