"""FCOS's and ATSS's losses: focal classes, centerness, boxes weighted by centerness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise import losses
from poise.boxes import centerness
from poise.criteria.protocol import hard_label, masked_sum, positives, positives_of_images
from poise.criteria.weights import LossWeights, Taught, weights_of_logits
from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth, QualityPredictions


@dataclass(frozen=True)
class CenternessCriterion:
    """Classes and centerness divided by ``count``; boxes by the sum of the centerness targets, at least ``least``."""

    count: Callable[[Assignment], Tensor] = positives
    class_loss: Callable[[Tensor, Tensor], Tensor] = losses.focal
    soft_label: Callable[[QualityPredictions, Assignment, Tensor], Tensor | float] = (
        hard_label  # of positives, in [0,1]
    )
    box_loss: Callable[[Tensor, Tensor], Tensor] = losses.giou
    box_weight: float = 1.0
    least: float = 1e-6

    def __call__(
        self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        taught = self.taught(predictions, assignment, truth)
        central = _central(predictions, assignment, truth)
        quality_loss = binary_cross_entropy_with_logits(predictions.quality, central, reduction="none")
        return {
            "loss_cls": taught.class_sum(self.class_loss(predictions.logits, taught.targets)),
            "loss_bbox": masked_sum(self.box_loss(predictions.boxes, assignment.boxes(truth)), taught.boxes),
            "loss_centerness": masked_sum(quality_loss, assignment.positive.float()) / self.count(assignment),
        }

    def taught(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Taught:
        """What places are taught, and how much of it counts."""
        soft_label = self.soft_label(predictions, assignment, assignment.boxes(truth))
        central = _central(predictions, assignment, truth)
        return Taught(
            targets=assignment.targets(truth, predictions.logits.shape[2], soft_label),
            classes=(~assignment.ignored).float() / self.count(assignment),
            boxes=central * (self.box_weight / normalizer(central.sum(), self.least)),
        )

    def weights(self, predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> LossWeights:
        """How much each place counts in the losses of classes and boxes."""
        taught = self.taught(predictions, assignment, truth)
        return weights_of_logits(taught, self.class_loss(predictions.logits, taught.targets), predictions.logits)


def _central(predictions: QualityPredictions, assignment: Assignment, truth: GroundTruth) -> Tensor:
    """The centerness that positives are taught, 0 elsewhere, (B,N)."""
    return centerness(predictions.priors.centers, assignment.boxes(truth)) * assignment.positive


def fcos_criterion() -> CenternessCriterion:
    """As FCOS (Tian et al. 2019, eq. 2)."""
    return CenternessCriterion()


def atss_criterion() -> CenternessCriterion:
    """As ATSS: every image counts at least one positive, boxes count twice."""
    return CenternessCriterion(count=positives_of_images, box_weight=2.0, least=1.0)
