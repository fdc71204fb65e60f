"""What it costs a place to answer to an object of a class: a classification loss summed over classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.pairwise.chunks import object_chunks, wide
from poise.pairwise.pairs import Pairs
from poise.pairwise.planes import rows


def focal_of_absent(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of logits whose class is not there, a new tensor."""
    return logits.sigmoid().pow_(gamma).mul_(softplus(logits)).mul_(1 - alpha)


class ClassCost:
    """Costs of one-hot targets: the loss of every class of being background, but for the object's own of being right.

    Only the object's own class differs from the cost of background, so that one is exchanged and no (B,N,G,C) is made.

    Args:
        values: (B,N,C) logits or scores.
        hit, miss: the losses of values (B,g,N) whose target is 1, and 0; new tensors.
    """

    def __init__(self, values: Tensor, hit: Callable[[Tensor], Tensor], miss: Callable[[Tensor], Tensor]) -> None:
        self.given, self.hit, self.miss = values, hit, miss
        self.values = values.transpose(1, 2).contiguous()
        batch, classes, places = self.values.shape
        total = torch.zeros(batch, places, dtype=wide(values.device), device=values.device)
        for part in object_chunks(batch, places, classes, values.device):
            total += miss(self.values[:, part]).sum(1)
        self.background = total.float()  # (B,N): what it costs to answer to nothing

    def __call__(self, labels: Tensor) -> Tensor:
        """Costs (B,g,N) float32 for objects of classes (B,g)."""
        return self._exchanged(rows(self.values, labels), self.background[:, None])

    def of_pairs(self, labels: Tensor, pairs: Pairs) -> Tensor:
        """The same for pairs."""
        value = pairs.of_classes(self.given, labels)
        return self._exchanged(value, pairs.of_places(self.background))

    def _exchanged(self, value: Tensor, background: Tensor) -> Tensor:
        return self.hit(value).sub_(self.miss(value)).add_(background)
