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
from poise.criteria.protocol import hard_label
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth, QueryPredictions


def of_own_rank(count: Tensor) -> Tensor:
    """The count of this rank alone, at least 1 (Conditional-DETR and DAB-DETR divide their classes by it)."""
    return count.clamp(min=1)


def iou_of_normalized_boxes(predictions: QueryPredictions, assignment: Assignment, wanted: Tensor) -> Tensor:
    """The IoU of each query's box (B,N) in shares of the image, where boxes below a millionth of it count as less."""
    return iou(cxcywh_to_xyxy(predictions.normalized_boxes.detach()), cxcywh_to_xyxy(wanted))


@dataclass(frozen=True)
class SetCriterion:
    """Classes, L1 and GIoU, divided by the positives.

    Args:
        soft_label: what positives are taught as their class, of predictions, assignment and the objects' shares.
        class_count: from a layer's number of positives to what its classes are divided by.
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QueryPredictions, Assignment, Tensor], Tensor | float] = hard_label
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    class_count: Callable[[Tensor], Tensor] = normalizer

    def __call__(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        return self.of_layers(predictions, assignment, truth, ("{}",))

    def of_layers(
        self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Losses of stacked layers (L*B,N), each under its own name: ``"d0.{}"`` gives ``d0.loss_cls`` and so on.

        ``truth`` is that of L*B images. Ignored queries do not count.
        """
        wanted, objects = normalize_boxes(assignment.boxes(truth), truth.sizes), assignment.boxes(truth)
        layers = len(names)
        taught = self.taught(predictions, assignment, truth, layers)
        class_loss = self.class_loss(predictions.logits, taught.targets).sum(2)
        distance = losses.l1(predictions.normalized_boxes, wanted).sum(2)
        overlap_loss = losses.giou(predictions.boxes, objects)
        terms = {
            "loss_cls": _sums(class_loss, taught.classes, layers),
            "loss_bbox": _sums(distance, taught.boxes, layers) * self.box_weight,
            "loss_iou": _sums(overlap_loss, taught.boxes, layers) * self.giou_weight,
        }
        return {name.format(term): value[i] for term, value in terms.items() for i, name in enumerate(names)}

    def taught(
        self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth, layers: int = 1
    ) -> Taught:
        """What the queries of stacked layers are taught; how much boxes count is without the weights of their terms."""
        labels = self.soft_label(predictions, assignment, normalize_boxes(assignment.boxes(truth), truth.sizes))
        targets = assignment.targets(truth, predictions.logits.shape[2], labels)
        number = assignment.positive.float().reshape(layers, -1).sum(1)
        classes = (self.class_weight / self.class_count(number)).repeat_interleave(len(targets) // layers)[:, None]
        boxes = (1 / normalizer(number)).repeat_interleave(len(targets) // layers)[:, None]
        return Taught(targets, ~assignment.ignored * classes, assignment.positive * boxes)

    def weights(self, predictions: QueryPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each query of one layer counts; of boxes in GIoU (in L1 ``box_weight / giou_weight`` times that)."""
        taught = self.taught(predictions, assignment, truth)
        loss = self.class_loss(predictions.logits, taught.targets)
        boxes = taught.boxes * self.giou_weight
        return weights_of_logits(taught._replace(boxes=boxes), loss, predictions.logits)


def _sums(loss: Tensor, weight: Tensor, layers: int) -> Tensor:
    """Weighted sum of each layer (L,) over the places that count, whatever stands in the others."""
    return (loss.where(weight != 0, 0.0) * weight).reshape(layers, -1).sum(1)
