"""GFL's losses: quality focal, GIoU and distribution focal loss (Li et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise import losses
from poise.boxes import encode_distances, iou
from poise.criteria.protocol import masked_sum, positives_of_images
from poise.distributed import normalizer
from poise.structures import Assignment, DistributionPredictions, GroundTruth


@dataclass(frozen=True)
class DistributionCriterion:
    """Classes are taught the IoU of their own box; boxes are weighted by the best class score of their place."""

    box_weight: float = 2.0
    distribution_weight: float = 0.25
    beta: float = 2.0  # of the quality focal loss
    margin: float = 0.1  # distance targets stay this much below the last bin

    def __call__(
        self, predictions: DistributionPredictions, assignment: Assignment, truth: GroundTruth
    ) -> dict[str, Tensor]:
        objects = assignment.boxes(truth)
        overlap = iou(predictions.boxes.detach(), objects)
        targets = assignment.targets(truth, predictions.logits.shape[2], overlap)
        class_loss = losses.quality_focal(predictions.logits, targets, self.beta).sum(2)
        weight = predictions.logits.detach().sigmoid().amax(2) * assignment.positive
        total = normalizer(weight.sum())
        box_loss = masked_sum(losses.giou(predictions.boxes, objects), weight)
        distribution_loss = masked_sum(self._distribution_loss(predictions, objects), weight)
        return {
            "loss_cls": masked_sum(class_loss, (~assignment.ignored).float()) / positives_of_images(assignment),
            "loss_bbox": box_loss * (self.box_weight / total),
            "loss_dfl": distribution_loss * (self.distribution_weight / total),
        }

    def _distribution_loss(self, predictions: DistributionPredictions, objects: Tensor) -> Tensor:
        """Mean over the four sides, (B,N)."""
        priors = predictions.priors
        distances = encode_distances(priors.centers, objects) / priors.strides[:, None]
        last = predictions.bins.shape[-1] - 1
        wanted = torch.nan_to_num(distances).clamp(0, last - self.margin)
        return losses.distribution_focal(predictions.bins, wanted).mean(2)
