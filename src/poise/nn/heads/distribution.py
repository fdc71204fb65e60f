"""GFL's head: each side's distance is the mean of a discrete distribution (Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.grids import AnchorGrid, flatten
from poise.nn.towers import Scale, init_towers, predictor, rare, tower
from poise.structures import DistributionPredictions


class DistributionHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``DistributionPredictions`` with ``bins`` values 0 … bins - 1 a side."""

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, bins: int = 17, depth: int = 4, groups: int = 32
    ) -> None:
        super().__init__()
        self.grid, self.num_classes, self.bins = grid, num_classes, bins
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        init_towers(self.classification, self.regression)
        self.classes = predictor(channels, num_classes, rare())
        self.sides = predictor(channels, 4 * bins)
        self.scales = nn.ModuleList([Scale() for _ in grid.strides])

    def forward(self, maps: Sequence[Tensor]) -> DistributionPredictions:
        priors = self.grid(maps)
        logits = flatten([self.classes(self.classification(level)) for level in maps], self.num_classes)
        outputs = [self.sides(self.regression(level)).float() for level in maps]
        sides = [scale(output) for scale, output in zip(self.scales, outputs, strict=True)]
        bins = flatten(sides, 4 * self.bins).unflatten(2, (4, self.bins))
        distances = expectation(bins) * priors.strides[:, None]
        return DistributionPredictions(priors, logits, decode_distances(priors.centers, distances), bins)


def expectation(bins: Tensor) -> Tensor:
    """Mean of the distributions over 0 … R-1 whose logits are (...,R)."""
    values = torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    return (bins.softmax(-1) * values).sum(-1)
