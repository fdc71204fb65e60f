"""RetinaNet's head: classes and box offsets of several anchors per cell (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.boxes import DeltaCoder
from poise.nn.layers import AnchorGrid, init_towers, output_conv, prior_bias, tower
from poise.structures import DeltaPredictions


class AnchorHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``DeltaPredictions``."""

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, coder: DeltaCoder, *, depth: int = 4, groups: int = 0
    ) -> None:
        super().__init__()
        self.grid, self.coder, self.num_classes = grid, coder, num_classes
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, grid.count * num_classes, prior_bias())
        self.offsets = output_conv(channels, grid.count * 4)

    def forward(self, maps: Sequence[Tensor]) -> DeltaPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        logits, deltas = self.grid.flatten(
            self.classes(self.classification(list(maps))), self.offsets(self.regression(list(maps)))
        )
        return DeltaPredictions(priors, logits, self.coder.decode(priors.boxes, deltas), deltas)
