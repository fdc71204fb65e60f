"""Elementwise losses in float32, neither reduced nor weighted, and the sums and normalizers by which criteria do both.

Classification losses take logits and targets of one shape, with p = sigmoid(logits). Box losses take (...,4) xyxy boxes
and return (...).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from poise import boxes
from poise.distributed import mean_over_ranks
from poise.structures import Assignment


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross entropy of targets in [0,1], -t ln p - (1 - t) ln(1 - p)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the focal loss (Lin et al. 2017) of binary targets, -alpha_t (1 - p_t)^gamma ln p_t."""
    probability = logits.sigmoid()
    error = probability + targets - 2 * probability * targets  # 1 - p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * error**gamma * binary_cross_entropy(logits, targets)


def quality_focal(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss (GFL: Li et al. 2020, eq. 2) of targets q in [0,1], |q - p|^beta BCE(p, q)."""
    distance = (targets - logits.sigmoid()).abs()
    return distance**beta * binary_cross_entropy(logits, targets)


def joint_quality_focal(logits: Tensor, quality: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss of p = sigmoid(logits) sigmoid(quality) (GFLv2: Li et al. 2021); shapes broadcast.

    It is computed from logarithms, so that loss and gradients are finite where scores round to 0 or 1.
    """
    score = functional.logsigmoid(logits) + functional.logsigmoid(quality)
    rest = score + torch.logaddexp(-logits, functional.softplus(-logits) - quality)  # ln(1 - p)
    entropy = -(targets * score + (1 - targets) * rest)
    return (targets - score.exp()).abs() ** beta * entropy


def varifocal(
    logits: Tensor, targets: Tensor, alpha: float = 0.75, gamma: float = 2.0, *, iou_weighted: bool = True
) -> Tensor:
    """Return the varifocal loss (VFL: Zhang et al. 2021, eq. 2) of targets q in [0,1], the IACS of positives.

    q BCE(p, q) where q > 0 (weight 1 instead of q without ``iou_weighted``), alpha p^gamma BCE(p, 0) where q = 0.
    """
    weight = varifocal_weight(logits.sigmoid(), targets, alpha, gamma, iou_weighted=iou_weighted)
    return weight * binary_cross_entropy(logits, targets)


def varifocal_weight(probability: Tensor, targets: Tensor, alpha: float, gamma: float, *, iou_weighted: bool) -> Tensor:
    """Return the factor of the cross entropy in ``varifocal``, given p."""
    positive = (targets > 0).float()
    positive_weight = targets if iou_weighted else positive
    return positive * positive_weight + (1 - positive) * alpha * probability**gamma


class VarifocalLoss(nn.Module):
    """Varifocal loss with its normalization, as a module for any model (for example a YOLO's objectness or classes).

    The target is the IoU-aware classification score (IACS): at a positive's class (or at its objectness) the IoU of its
    own predicted box, without gradient; 0 elsewhere.

    * Each element is weighted before the sum. A widespread snippet for YOLOv5 averages the cross entropy first, and so
      multiplies one number by all weights.
    * The sum is divided by the number of positives, not of elements, of which nearly all are easy negatives.
    * gamma reduces the weight of easy negatives alone, and alpha is the weight of negatives. The defaults are 2 and
      0.75, not the focal loss's 1.5 and 0.25 of YOLOv5.
    * Targets above 0 are positives, so labels must not be smoothed; a positive with IoU 0 counts as a negative.

    Args:
        alpha: weight of negatives.
        gamma: exponent of p in the weight of negatives.
        iou_weighted: whether the weight of positives is their target; otherwise it is 1.
        reduction: "positives" (the sum divided by the number of targets above 0, at least 1), "sum", "mean" or "none".
    """

    def __init__(
        self, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True, reduction: str = "positives"
    ) -> None:
        super().__init__()
        if reduction not in ("positives", "sum", "mean", "none"):
            raise ValueError(f"reduction='{reduction}' is unknown; use one of positives, sum, mean, none")
        self.alpha, self.gamma, self.iou_weighted, self.reduction = alpha, gamma, iou_weighted, reduction

    def forward(self, logits: Tensor, targets: Tensor, positives: Tensor | float | None = None) -> Tensor:
        """Return the loss in float32, a scalar unless ``reduction`` is "none".

        Args:
            logits: of any shape.
            targets: IACS in [0,1], of the same shape.
            positives: divisor of the sum, clamped to at least 1, where ``targets`` are not all of a step (one level of
                several, or one process of several); by default the number of targets above 0.

        Raises:
            ValueError: logits and targets differ in shape.
        """
        if logits.shape != targets.shape:
            raise ValueError(f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}: the shapes must be equal")
        with torch.autocast(logits.device.type, enabled=False):
            loss = varifocal(logits.float(), targets.float(), self.alpha, self.gamma, iou_weighted=self.iou_weighted)
        if self.reduction == "positives":
            count = (targets > 0).sum() if positives is None else torch.as_tensor(positives, device=loss.device)
            return loss.sum() / count.clamp(min=1)
        return loss if self.reduction == "none" else loss.sum() if self.reduction == "sum" else loss.mean()


def distribution_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the distribution focal loss (DFL: Li et al. 2020, eq. 6) of logits (...,R), targets (...) in [0, R-1)."""
    left = targets.floor()
    right_weight = targets - left
    log_probability = functional.log_softmax(logits, -1)
    index = left.long()[..., None]
    low = log_probability.gather(-1, index).squeeze(-1)
    high = log_probability.gather(-1, index + 1).squeeze(-1)
    return -(1 - right_weight) * low - right_weight * high


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Return the smooth L1 loss (Girshick 2015): quadratic below ``beta``, linear above."""
    distance = (prediction - target).abs()
    return torch.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the absolute difference."""
    return (prediction - target).abs()


def balanced_l1(
    prediction: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, *, beta: float = 1.0
) -> Tensor:
    """Return the balanced L1 loss (Libra R-CNN: Pang et al. 2019, eq. 5-9).

    Its gradient is continuous at ``beta`` only for beta = 1.
    """
    distance = (prediction - target).abs()
    b = math.exp(gamma / alpha) - 1
    inner = alpha / b * (b * distance + 1) * (b * distance / beta + 1).log() - alpha * distance
    return torch.where(distance < beta, inner, gamma * distance + gamma / b - alpha * beta)


def iou(prediction: Tensor, target: Tensor) -> Tensor:
    """Return -ln IoU, with the IoU clamped to at least 1e-6."""
    return -boxes.iou(prediction, target).clamp(min=boxes.EPS).log()


def giou(prediction: Tensor, target: Tensor) -> Tensor:
    """Return 1 - GIoU, in [0,2]."""
    return 1 - boxes.giou(prediction, target)


def diou(prediction: Tensor, target: Tensor) -> Tensor:
    """Return 1 - DIoU, in [0,2]."""
    return 1 - boxes.diou(prediction, target)


def ciou(prediction: Tensor, target: Tensor) -> Tensor:
    """Return 1 - CIoU."""
    return 1 - boxes.ciou(prediction, target)


def hard_label(predictions: object, assignment: Assignment, objects: Tensor) -> float:
    """Return the class target 1 for every positive, independent of its box."""
    return 1.0


def normalizer(value: Tensor, minimum: float = 1.0) -> Tensor:
    """Return the divisor of a loss sum: ``value`` averaged over ranks, then clamped to at least ``minimum``."""
    value = value.detach().float()
    if distributed.is_available() and distributed.is_initialized():
        value = mean_over_ranks(value)
    return value.clamp(min=minimum)


def num_positives(assignment: Assignment) -> Tensor:
    """Return the number of positives of the batch as a normalizer."""
    return normalizer(assignment.positive.sum())


def num_positives_clamped(assignment: Assignment) -> Tensor:
    """Return the number of positives, counting at least one in every image, as a normalizer (RetinaNet, ATSS, GFL)."""
    return normalizer(assignment.positive.sum(1).clamp(min=1).sum())


def masked_sums(*terms: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Sum ``loss * weight`` of each ``(loss, weight)`` over the elements with a nonzero weight.

    The other elements may hold any value, even NaN.
    """
    return [(loss.where(weight != 0, 0.0) * weight).sum() for loss, weight in terms]


def masked_sum(loss: Tensor, weight: Tensor) -> Tensor:
    """Return the ``masked_sums`` of a single term."""
    return masked_sums((loss, weight))[0]
