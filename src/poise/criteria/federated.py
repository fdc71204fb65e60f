"""Federated loss for many rare classes (Zhou et al. 2021, "Probabilistic two-stage detection", section 5.3).

A step's classification reads only some classes: those that it has objects of, and others drawn until there are enough,
by the square root of the number of training images that show them. So a rare class is not told "no" by every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FederatedLoss:
    """An elementwise classification loss, zero in the classes that this call does not read.

    Args:
        loss: from logits and targets (B,N,C) to losses (B,N,C).
        frequency: (C,) images of each class.
        classes: that are read, at least; all that are present are.
        power: of the frequency that classes are drawn by.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    frequency: Tensor
    classes: int = 50
    power: float = 0.5

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits, targets) * self.read(targets)

    @torch.no_grad()
    def read(self, targets: Tensor) -> Tensor:
        """1 for the classes that are read, (C,), of targets (B,N,C); drawn without replacement, by Gumbel's maxima."""
        present = targets.flatten(0, -2).amax(0) > 0
        weight = self.frequency.to(targets.device).float().clamp(min=1) ** self.power
        chance = torch.rand(len(weight), device=targets.device).clamp(min=1e-20)
        key = torch.where(present, torch.inf, weight.log() - (-chance.log()).log())
        drawn = torch.zeros_like(present).scatter(0, key.topk(min(self.classes, len(key))).indices, True)
        return (present | drawn).to(targets.dtype)
