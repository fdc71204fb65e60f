"""Heads whose box distances are means of discrete distributions: GFL, GFLv2 and NanoDet-Plus."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.layers import AnchorGrid, Scales, init_towers, output_conv, prior_bias, tower
from poise.nn.necks.ghost_pan import DepthwiseSeparable
from poise.structures import DistributionPredictions, JointDistributionPredictions


class DistributionQuality(nn.Module):
    """Distribution-guided quality predictor of GFLv2 (Li et al. 2021, section 3.2).

    Two small layers read the ``topk`` largest probabilities of each side and their mean: a sharp distribution indicates
    an accurate box. Gradients reach the distributions.
    """

    def __init__(self, topk: int = 4, hidden: int = 64) -> None:
        super().__init__()
        self.topk = topk
        self.layers = nn.Sequential(
            nn.Conv2d(4 * (topk + 1), hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 1)
        )
        init_towers(self.layers)

    def forward(self, bins: Tensor) -> Tensor:
        """Return quality logits (B,N) of the logits of the distributions (B,N,4,R)."""
        largest = bins.softmax(-1).topk(self.topk, -1).values
        statistics = torch.cat((largest, largest.mean(-1, keepdim=True)), -1).flatten(2)
        return self.layers(statistics.transpose(1, 2)[..., None])[:, 0, :, 0].float()


class DistributionHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``DistributionPredictions`` over the values 0, ..., bins - 1 (GFL).

    With ``quality`` the predictions are ``JointDistributionPredictions``: the predicted quality multiplies the class
    scores (GFLv2).
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        bins: int = 17,
        *,
        depth: int = 4,
        groups: int = 32,
        quality: DistributionQuality | None = None,
    ) -> None:
        super().__init__()
        if quality is not None and quality.topk > bins:
            raise ValueError(f"reg_topk={quality.topk} must not be larger than bins={bins}")
        self.grid, self.num_classes, self.bins = grid, num_classes, bins
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.box_distances = output_conv(channels, 4 * bins)
        self.scales = Scales(len(grid.strides))
        self.quality = quality

    def forward(self, maps: Sequence[Tensor]) -> DistributionPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        classes = self.classes(self.classification(list(maps)))
        outputs = self.scales([level.float() for level in self.box_distances(self.regression(list(maps)))])
        logits, bins = self.grid.flatten(classes, outputs)
        bins = bins.unflatten(2, (4, self.bins))
        distances = expectation(bins) * priors.strides[:, None]
        boxes = decode_distances(priors.centers, distances)
        if self.quality is None:
            return DistributionPredictions(priors, logits, boxes, bins)
        return JointDistributionPredictions(priors, logits, boxes, bins=bins, quality=self.quality(bins))


class LightHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``DistributionPredictions`` (NanoDet-Plus).

    Each level has its own depthwise separable layers, which classes and distances share.
    """

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, bins: int = 8, *, depth: int = 2, kernel: int = 5
    ) -> None:
        super().__init__()
        self.grid, self.num_classes, self.bins = grid, num_classes, bins
        layers = [[DepthwiseSeparable(channels, channels, kernel) for _ in range(depth)] for _ in grid.strides]
        self.towers = nn.ModuleList([nn.Sequential(*tower) for tower in layers])
        init_towers(self.towers)
        self.classes = nn.ModuleList([nn.Conv2d(channels, num_classes, 1) for _ in grid.strides])
        self.box_distances = nn.ModuleList([nn.Conv2d(channels, 4 * bins, 1) for _ in grid.strides])
        for conv in (*self.classes, *self.box_distances):  # in the bins this bias is a constant shift without effect
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, prior_bias())

    def forward(self, maps: Sequence[Tensor]) -> DistributionPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        features = [tower(level) for tower, level in zip(self.towers, maps, strict=True)]
        classes = [output(level) for output, level in zip(self.classes, features, strict=True)]
        distances = [output(level) for output, level in zip(self.box_distances, features, strict=True)]
        logits, bins = self.grid.flatten(classes, distances)
        bins = bins.unflatten(2, (4, self.bins))
        boxes = decode_distances(priors.centers, expectation(bins) * priors.strides[:, None])
        return DistributionPredictions(priors, logits, boxes, bins)


def expectation(bins: Tensor) -> Tensor:
    """Return the means (...) of the distributions over 0, ..., R - 1 with logits (...,R)."""
    values = torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    return (bins.softmax(-1) * values).sum(-1)
