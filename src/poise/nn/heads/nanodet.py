"""NanoDet-Plus's head: light, depthwise, with weights of its own on every level."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.head_layers import AnchorGrid, flatten_levels, init_towers, prior_bias
from poise.nn.heads.distribution import expectation
from poise.nn.necks.ghost_pan import DepthwiseSeparable
from poise.structures import DistributionPredictions


class LightHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``DistributionPredictions``; one tower a level serves classes and sides."""

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, bins: int = 8, depth: int = 2, kernel: int = 5
    ) -> None:
        super().__init__()
        self.grid, self.num_classes, self.bins = grid, num_classes, bins
        layers = [[DepthwiseSeparable(channels, channels, kernel) for _ in range(depth)] for _ in grid.strides]
        self.towers = nn.ModuleList([nn.Sequential(*tower) for tower in layers])
        init_towers(self.towers)
        self.classes = nn.ModuleList([_output(channels, num_classes) for _ in grid.strides])
        self.box_distances = nn.ModuleList([_output(channels, 4 * bins) for _ in grid.strides])

    def forward(self, maps: Sequence[Tensor]) -> DistributionPredictions:
        priors = self.grid(maps)
        features = [tower(level) for tower, level in zip(self.towers, maps, strict=True)]
        logits = flatten_levels(
            [output(level) for output, level in zip(self.classes, features, strict=True)], self.num_classes
        )
        sides = flatten_levels(
            [output(level) for output, level in zip(self.box_distances, features, strict=True)], 4 * self.bins
        )
        bins = sides.unflatten(2, (4, self.bins))
        distances = expectation(bins) * priors.strides[:, None]
        return DistributionPredictions(priors, logits, decode_distances(priors.centers, distances), bins)


def _output(channels: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution that starts rare everywhere; on the sides' bins that is a constant shift without effect."""
    conv = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, prior_bias())  # type: ignore[arg-type]
    return conv
