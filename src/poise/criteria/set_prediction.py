"""The losses of detection as set prediction (DETR: Carion et al. 2020, eq. 2; the focal form of Deformable-DETR).

Every query is taught its class or that there is nothing, matched ones also their box: L1 between shares of the image
and GIoU between pixels. All layers of a decoder are weighed in one call, each by its own positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from poise import losses
from poise.boxes import cxcywh_to_xyxy, iou, to_shares
from poise.criteria.protocol import certain
from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth, QueryPredictions


def of_own_rank(count: Tensor) -> Tensor:
    """The count of this rank alone, at least 1 (Conditional-DETR and DAB-DETR divide their classes by it)."""
    return count.clamp(min=1)


def overlap_of_shares(predictions: QueryPredictions, assignment: Assignment, wanted: Tensor) -> Tensor:
    """The IoU of each query's box (B,N) in shares of the image, where boxes below a millionth of it count as less."""
    return iou(cxcywh_to_xyxy(predictions.shares.detach()), cxcywh_to_xyxy(wanted))


@dataclass(frozen=True)
class SetCriterion:
    """Classes, L1 and GIoU, divided by the positives.

    Args:
        soft_label: what positives are taught as their class, of predictions, assignment and the objects' shares.
        class_count: from a layer's number of positives to what its classes are divided by.
    """

    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QueryPredictions, Assignment, Tensor], Tensor | float] = certain
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
        wanted, objects = to_shares(assignment.boxes(truth), truth.sizes), assignment.boxes(truth)
        labels = self.soft_label(predictions, assignment, wanted)
        targets = assignment.targets(truth, predictions.logits.shape[2], labels)
        class_loss = self.class_loss(predictions.logits, targets).sum(2)
        distance = losses.l1(predictions.shares, wanted).sum(2)
        overlap_loss = losses.giou(predictions.boxes, objects)
        layers = len(names)
        number = assignment.positive.float().reshape(layers, -1).sum(1)
        count = normalizer(number)
        terms = {
            "loss_cls": _sums(class_loss, ~assignment.ignored, layers) * self.class_weight / self.class_count(number),
            "loss_bbox": _sums(distance, assignment.positive, layers) * self.box_weight / count,
            "loss_iou": _sums(overlap_loss, assignment.positive, layers) * self.giou_weight / count,
        }
        return {name.format(term): value[i] for term, value in terms.items() for i, name in enumerate(names)}


def _sums(loss: Tensor, counted: Tensor, layers: int) -> Tensor:
    """Sum of each layer (L,) over the places that count, whatever stands in the others."""
    return loss.where(counted, 0.0).reshape(layers, -1).sum(1)
