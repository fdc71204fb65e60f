"""Elementwise losses: unreduced, unweighted, in fp32; criteria weigh and sum them.

Classification losses take logits ``z`` and targets of the same shape (p = sigmoid(z)); box losses take (...,4)
xyxy boxes and give (...).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
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
