"""The classification cost of assigning a prior to an object: a loss summed over all classes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import softplus

from poise.pairwise import Pairs, accumulate_dtype


class ClassCost:
    """Sum over classes of ``absent`` at every class but the object's own, which counts ``present``.

    Only the object's own class differs from the cost of background. That term is exchanged, so that no (B,G,N,C)
    tensor is made.

    Args:
        values: (B,N,C) logits or scores.
        absent: elementwise loss of values whose target is 0.
    """

    def __init__(self, values: Tensor, absent: Callable[[Tensor], Tensor]) -> None:
        self.values = values.mT.contiguous().mT  # one plane a class
        self.absent = absent(self.values)
        self.background = self.absent.sum(2, dtype=accumulate_dtype(values.device)).float()  # (B,N)

    def __call__(self, pairs: Pairs, labels: Tensor, present: Callable[[Tensor], Tensor]) -> Tensor:
        """Costs of pairs with objects of classes (B,g); ``present`` is the loss of the values of an object's class."""
        background = pairs.from_priors(self.background) - pairs.from_classes(self.absent, labels)
        return background + present(pairs.from_classes(self.values, labels))


def focal_of_absent(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of logits whose target is 0."""
    return logits.sigmoid().pow_(gamma).mul_(softplus(logits)).mul_(1 - alpha)


def focal_of_present(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of logits whose target is 1."""
    return (-logits).sigmoid().pow_(gamma).mul_(softplus(-logits)).mul_(alpha)
