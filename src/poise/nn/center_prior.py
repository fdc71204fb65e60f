"""The center prior as parameters of a network: one Gaussian a class, as DW and AutoAssign keep them in checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.assign.center_priors import gaussian
from poise.pairwise.pairs import Pairs
from poise.structures import Priors


class CenterPrior(nn.Module):
    """How strongly an object of each class holds on to the places around its center (a bag; see ``assign.bags``).

    Args:
        num_classes: one mean and one width (both in strides, x and y) for each.
        sigma: the width at the start.
        trained: whether training moves them (AutoAssign does, DW does not).
    """

    def __init__(self, num_classes: int, sigma: float, trained: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2), requires_grad=trained)
        self.sigma = nn.Parameter(torch.full((num_classes, 2), sigma), requires_grad=trained)

    def forward(self, priors: Priors, boxes: Tensor, labels: Tensor, pairs: Pairs) -> Tensor:
        """Weights in [0,1] of the ``pairs`` of places and boxes (B,G,4) of classes (B,G)."""
        return gaussian(priors, boxes, self.mean[labels].float(), self.sigma[labels].float(), pairs)
