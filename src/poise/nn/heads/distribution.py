"""GFL's head: each side's distance is the mean of a discrete distribution; GFLv2 reads a box's quality off them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.head_layers import AnchorGrid, Scales, flatten_levels, init_towers, output_conv, prior_bias, tower
from poise.structures import DistributionPredictions, JointDistributionPredictions


class DistributionQuality(nn.Module):
    """How good a box is, told by how sharp the distributions of its sides are (GFLv2: Li et al. 2021, section 3.2).

    Each side gives its ``topk`` greatest probabilities and their mean to two small layers. Their gradient reaches the
    distributions.
    """

    def __init__(self, topk: int = 4, hidden: int = 64) -> None:
        super().__init__()
        self.topk = topk
        self.layers = nn.Sequential(
            nn.Conv2d(4 * (topk + 1), hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 1)
        )
        init_towers(self.layers)

    def forward(self, bins: Tensor) -> Tensor:
        """Logits (B,N) of bins' logits (B,N,4,R)."""
        greatest = bins.softmax(-1).topk(self.topk, -1).values
        statistics = torch.cat((greatest, greatest.mean(-1, keepdim=True)), -1).flatten(2)
        return self.layers(statistics.transpose(1, 2)[..., None])[:, 0, :, 0].float()


class DistributionHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``DistributionPredictions`` with ``bins`` values 0 … bins - 1 a side.

    With ``quality`` to ``JointDistributionPredictions``: what it says multiplies the classes.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        bins: int = 17,
        depth: int = 4,
        groups: int = 32,
        quality: DistributionQuality | None = None,
    ) -> None:
        super().__init__()
        if quality is not None and quality.topk > bins:
            raise ValueError(f"the {quality.topk} greatest of {bins} bins: there are not so many")
        self.grid, self.num_classes, self.bins = grid, num_classes, bins
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.box_distances = output_conv(channels, 4 * bins)
        self.scales = Scales(len(grid.strides))
        self.quality = quality

    def forward(self, maps: Sequence[Tensor]) -> DistributionPredictions:
        priors = self.grid(maps)
        logits = flatten_levels(self.classes(self.classification(list(maps))), self.num_classes)
        outputs = self.scales([level.float() for level in self.box_distances(self.regression(list(maps)))])
        bins = flatten_levels(outputs, 4 * self.bins).unflatten(2, (4, self.bins))
        distances = expectation(bins) * priors.strides[:, None]
        boxes = decode_distances(priors.centers, distances)
        if self.quality is None:
            return DistributionPredictions(priors, logits, boxes, bins)
        return JointDistributionPredictions(priors, logits, boxes, bins=bins, quality=self.quality(bins))


def expectation(bins: Tensor) -> Tensor:
    """Mean of the distributions over 0 … R-1 whose logits are (...,R)."""
    values = torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    return (bins.softmax(-1) * values).sum(-1)
