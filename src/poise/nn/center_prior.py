"""The center prior as parameters of a network: one Gaussian a class, as DW and AutoAssign store it in checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.assign.center_priors import gaussian
from poise.pairwise import Objects, Pairs
from poise.structures import Priors


class CenterPrior(nn.Module):
    """A Gaussian around the object's center for each class (see :mod:`poise.assign.center_priors`).

    Args:
        num_classes: number of means and widths (both in strides, x and y).
        sigma: initial width.
        trained: whether they are trained (in AutoAssign, not in DW).
    """

    def __init__(self, num_classes: int, sigma: float, trained: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2), requires_grad=trained)
        self.sigma = nn.Parameter(torch.full((num_classes, 2), sigma), requires_grad=trained)

    def forward(self, priors: Priors, objects: Objects, pairs: Pairs) -> Tensor:
        """Return weights in [0,1] of the pairs."""
        mean, sigma = self.mean[objects.labels].float(), self.sigma[objects.labels].float()
        return gaussian(priors, objects.boxes, mean, sigma, pairs)
