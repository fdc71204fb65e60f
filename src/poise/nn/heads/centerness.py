"""Heads with a centerness logit beside classes and boxes: FCOS (distances) and ATSS (anchor offsets)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.boxes import DeltaCoder, decode_distances
from poise.nn.head_layers import AnchorGrid, Scales, flatten_levels, init_towers, output_conv, prior_bias, tower
from poise.structures import Priors, QualityPredictions


class CenternessHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``QualityPredictions``; the centerness is read off the regression tower.

    ``decoder`` turns priors and (B,N,4) scaled outputs into boxes: ``Distances()`` or ``Offsets(coder)``.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        decoder: Distances | Offsets,
        depth: int = 4,
        groups: int = 32,
        tower_bias: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.decoder, self.num_classes = grid, decoder, num_classes
        self.classification = tower(channels, depth, groups, tower_bias)
        self.regression = tower(channels, depth, groups, tower_bias)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.box_distances = output_conv(channels, 4)
        self.centerness = output_conv(channels, 1)
        self.scales = Scales(len(grid.strides))

    def forward(self, maps: Sequence[Tensor]) -> QualityPredictions:
        priors = self.grid(maps)
        logits = flatten_levels(self.classes(self.classification(list(maps))), self.num_classes)
        towers = self.regression(list(maps))
        sides = flatten_levels(self.scales([level.float() for level in self.box_distances(towers)]), 4)
        centerness = flatten_levels(self.centerness(towers), 1).squeeze(2)
        return QualityPredictions(priors, logits, self.decoder(priors, sides), centerness)


class Distances:
    """Outputs are the distances to the four sides in strides, negative ones cut off."""

    def __call__(self, priors: Priors, outputs: Tensor) -> Tensor:
        return decode_distances(priors.centers, outputs.clamp(min=0) * priors.strides[:, None])


class Offsets:
    """Outputs are the offsets of a ``DeltaCoder`` from the anchors."""

    def __init__(self, coder: DeltaCoder) -> None:
        self.coder = coder

    def __call__(self, priors: Priors, outputs: Tensor) -> Tensor:
        return self.coder.decode(priors.boxes, outputs)
