"""FCOS's and ATSS's losses: focal classes, centerness, boxes weighted by centerness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import centerness
from poise.criteria.protocol import (
    LossWeights,
    Targets,
    hard_label,
    loss_weights_from_logits,
    masked_sum,
    normalizer,
    num_positives,
    num_positives_clamped,
)
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class CenternessCriterion:
    """Classes and centerness divided by ``count``, boxes by the sum of the centerness targets."""

    count: Callable[[Assignment], Tensor] = num_positives
    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QualityPredictions, Assignment, Tensor], Tensor | float] = (
        hard_label  # of positives, in [0,1]
    )
    box_loss: Callable[[Tensor, Tensor], Tensor] = losses.giou
    box_weight: float = 1.0
    min_normalizer: float = 1e-6

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        targets = self.targets(predictions, assignment, truth)
        central = _central(predictions, assignment, truth)
        quality_loss = binary_cross_entropy_with_logits(predictions.quality, central, reduction="none")
        return {
            "loss_cls": masked_sum(
                self.class_loss(predictions.logits, targets.class_targets).sum(2), targets.class_weights
            ),
            "loss_bbox": masked_sum(self.box_loss(predictions.boxes, assignment.boxes(truth)), targets.box_weights),
            "loss_centerness": masked_sum(quality_loss, assignment.positive.float()) / self.count(assignment),
        }

    def targets(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Targets:
        """What places are targets, and how much of it counts."""
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        central = _central(predictions, assignment, truth)
        return Targets(
            class_targets=assignment.class_targets(truth, predictions.logits.shape[2], soft_label),
            class_weights=(~assignment.ignored).float() / self.count(assignment),
            box_weights=central * (self.box_weight / normalizer(central.sum(), self.min_normalizer)),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        targets = self.targets(predictions, assignment, truth)
        return loss_weights_from_logits(
            targets, self.class_loss(predictions.logits, targets.class_targets), predictions.logits
        )


def _central(predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """The centerness that positives are targets, 0 elsewhere, (B,N)."""
    return centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive


def fcos_criterion() -> CenternessCriterion:
    """As FCOS (Tian et al. 2019, eq. 2)."""
    return CenternessCriterion()


def atss_criterion() -> CenternessCriterion:
    """As ATSS: every image counts at min_normalizer one positive, boxes count twice."""
    return CenternessCriterion(count=num_positives_clamped, box_weight=2.0, min_normalizer=1.0)
