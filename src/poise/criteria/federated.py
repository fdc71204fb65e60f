"""Federated loss for many rare classes (Zhou et al. 2021, "Probabilistic two-stage detection", section 5.3).

The classification loss of a step includes only a subset of the classes: those of its objects, and others drawn with a
probability proportional to the square root of their number of training images. Rare classes are then not negatives of
every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FederatedLoss:
    """Elementwise classification loss, 0 in the classes that are not sampled.

    Args:
        loss: from logits and targets (B,N,C) to losses (B,N,C).
        frequency: number of images of each class, (C,).
        classes: number of sampled classes, if fewer are present; present classes are always sampled.
        power: exponent of ``frequency`` in the probability of a class.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    frequency: Tensor
    classes: int = 50
    power: float = 0.5

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss (B,N,C)."""
        return self.loss(logits, targets) * self.sampled(targets)

    @torch.no_grad()
    def sampled(self, targets: Tensor) -> Tensor:
        """Return 1 for sampled classes and 0 for others, (C,); drawn without replacement by the Gumbel top-k trick."""
        present = targets.flatten(0, -2).amax(0) > 0
        weight = self.frequency.to(targets.device).float().clamp(min=1) ** self.power
        uniform = torch.rand(len(weight), device=targets.device).clamp(min=1e-20)
        key = torch.where(present, torch.inf, weight.log() - (-uniform.log()).log())
        drawn = torch.zeros_like(present).scatter(0, key.topk(min(self.classes, len(key))).indices, True)
        return (present | drawn).to(targets.dtype)
