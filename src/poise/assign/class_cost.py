"""What it costs a place to answer to an object of a class: a classification loss summed over classes."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassCost:
    """Costs of one-hot targets from the two losses of every class, (B,N,C): of being right and of staying background.

    Only the object's own class differs from the cost of background, so that one is exchanged and no (B,N,G,C) is made.
    """

    def __init__(self, hit: Tensor, miss: Tensor) -> None:
        self.total = miss.sum(2, dtype=torch.float64)
        self.hit, self.miss = (loss.transpose(1, 2).contiguous() for loss in (hit, miss))

    def __call__(self, labels: Tensor) -> Tensor:
        """Costs (B,g,N) float32 for objects of classes (B,g)."""
        row = labels[..., None].expand(-1, -1, self.total.shape[1])
        return (self.total[:, None] - self.miss.gather(1, row) + self.hit.gather(1, row)).float()

    @property
    def background(self) -> Tensor:
        """(B,N) float32: what it costs to answer to nothing."""
        return self.total.float()
