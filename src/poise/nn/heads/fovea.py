"""FoveaBox's head: classes and logarithms of distances at every point (Kong et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.boxes import LogDistances
from poise.nn.layers import AnchorGrid, init_towers, output_conv, prior_bias, tower
from poise.structures import DeltaPredictions


class FoveaHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``DeltaPredictions``, encoded by ``LogDistances``."""

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, coder: LogDistances, *, depth: int = 4, groups: int = 0
    ) -> None:
        super().__init__()
        self.grid, self.coder, self.num_classes = grid, coder, num_classes
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.box_distances = output_conv(channels, 4)

    def forward(self, maps: Sequence[Tensor]) -> DeltaPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        logits, deltas = self.grid.flatten(
            self.classes(self.classification(list(maps))), self.box_distances(self.regression(list(maps)))
        )
        return DeltaPredictions(priors, logits, self.coder.decode(priors.centers, priors.strides, deltas), deltas)
