"""Elementwise losses: unreduced, unweighted, in fp32; criteria weigh and sum them.

Classification losses take logits ``z`` and targets of the same shape (p = sigmoid(z)); box losses take (...,4)
xyxy boxes and give (...).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise import boxes


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017) of binary targets: -a_t (1 - p_t)^gamma ln p_t."""
    probability = logits.sigmoid()
    miss = probability + targets - 2 * probability * targets  # 1 - p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * miss**gamma * functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def quality_focal(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss (Li et al. 2020, eq. 2) of targets in [0,1]: |q - p|^beta BCE(p, q)."""
    distance = (targets - logits.sigmoid()).abs()
    return distance**beta * functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def joint_quality_focal(logits: Tensor, quality: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss of scores p = sigmoid(logits) * sigmoid(quality) (GFLv2: Li et al. 2021), shapes broadcast.

    Computed from logarithms, so that it is finite with finite gradients where scores round to 0 or 1.
    """
    score = functional.logsigmoid(logits) + functional.logsigmoid(quality)
    rest = score + torch.logaddexp(-logits, functional.softplus(-logits) - quality)  # ln(1 - p)
    entropy = -(targets * score + (1 - targets) * rest)
    return (targets - score.exp()).abs() ** beta * entropy


def varifocal(
    logits: Tensor, targets: Tensor, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> Tensor:
    """Varifocal loss (Zhang et al. 2021, eq. 2) of targets in [0,1], q > 0 marking positives.

    q BCE(p, q) for positives (weight 1 where not ``iou_weighted``), alpha p^gamma BCE(p, 0) for the rest.
    """
    positive = (targets > 0).float()
    gain = targets if iou_weighted else positive
    weight = positive * gain + (1 - positive) * alpha * logits.sigmoid() ** gamma
    return weight * functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class VarifocalLoss(nn.Module):
    """``varifocal`` with its normalization, as a module for models of any kind (a YOLO's objectness or class output).

    Targets are soft: at a positive's class (for objectness: at its place) the IoU of its own predicted box, without
    gradient; 0 elsewhere. Three things make it the article's loss:

    * Every element is weighted before anything is summed. The snippet that circulates for YOLOv5 has its inner
      cross-entropy averaged first: one number times all weights is no weighting of the elements any more.
    * The sum is divided by the number of positives, not of elements, of which nearly all are easy negatives.
    * gamma damps negatives alone, and alpha is the weight of negatives: 0.75 and 2 here, not the focal loss's 0.25 and
      1.5. Targets above 0 are positives, so labels must not be smoothed; positives without any overlap count as
      negatives.

    Args:
        reduction: "positives" (the sum over the number of targets above 0, at least 1), "sum", "mean" or "none".
    """

    def __init__(
        self, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True, reduction: str = "positives"
    ) -> None:
        super().__init__()
        if reduction not in ("positives", "sum", "mean", "none"):
            raise ValueError(f"reduction='{reduction}': one of positives, sum, mean, none")
        self.alpha, self.gamma, self.iou_weighted, self.reduction = alpha, gamma, iou_weighted, reduction

    def forward(self, logits: Tensor, targets: Tensor, positives: Tensor | float | None = None) -> Tensor:
        """Loss in float32 of logits and targets of one shape; a scalar unless ``reduction`` is "none".

        ``positives`` is what the sum is divided by where these targets are not all there are: one level of several, one
        process of several. At least 1 is taken.

        Raises:
            ValueError: the shapes differ.
        """
        if logits.shape != targets.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must be of one shape")
        with torch.autocast(logits.device.type, enabled=False):
            loss = varifocal(logits.float(), targets.float(), self.alpha, self.gamma, self.iou_weighted)
        if self.reduction == "positives":
            count = (targets > 0).sum() if positives is None else torch.as_tensor(positives, device=loss.device)
            return loss.sum() / count.clamp(min=1)
        return loss if self.reduction == "none" else loss.sum() if self.reduction == "sum" else loss.mean()


def distribution_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Distribution focal loss (Li et al. 2020, eq. 6): logits (...,R) and targets (...) in [0, R-1)."""
    left = targets.floor()
    right_weight = targets - left
    log_probability = functional.log_softmax(logits, -1)
    index = left.long()[..., None]
    low = log_probability.gather(-1, index).squeeze(-1)
    high = log_probability.gather(-1, index + 1).squeeze(-1)
    return -(1 - right_weight) * low - right_weight * high


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Quadratic below ``beta``, linear above (Girshick 2015)."""
    distance = (prediction - target).abs()
    return torch.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs()


def balanced_l1(
    prediction: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    """Balanced L1 (Pang et al. 2019, eq. 5-9); its gradient is continuous at ``beta`` only for beta = 1."""
    distance = (prediction - target).abs()
    b = math.exp(gamma / alpha) - 1
    inner = alpha / b * (b * distance + 1) * (b * distance / beta + 1).log() - alpha * distance
    return torch.where(distance < beta, inner, gamma * distance + gamma / b - alpha * beta)


def iou(prediction: Tensor, target: Tensor) -> Tensor:
    """-ln IoU, the IoU clamped at 1e-6."""
    return -boxes.iou(prediction, target).clamp(min=boxes.EPS).log()


def giou(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU, in [0,2]."""
    return 1 - boxes.giou(prediction, target)


def diou(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - DIoU, in [0,2]."""
    return 1 - boxes.diou(prediction, target)


def ciou(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - CIoU."""
    return 1 - boxes.ciou(prediction, target)
