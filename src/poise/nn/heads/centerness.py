"""Heads with one quality logit per prior: FCOS (distances), ATSS (anchor offsets), and PAA and OTA (IoU)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from torch import Tensor, nn

from poise.boxes import DeltaCoder, decode_distances
from poise.nn.distances import positive
from poise.nn.layers import AnchorGrid, Scales, init_towers, output_conv, prior_bias, tower
from poise.structures import GeometricPredictions, Priors, QualityPredictions


class CenternessHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``QualityPredictions``, with the centerness from the regression tower.

    Args:
        decoder: from priors and scaled outputs (B,N,4) to boxes: ``Distances()`` or ``Offsets(coder)``.
        depth: layers of each tower.
        groups: of the group norm.
        tower_bias: whether the convolutions of the towers have a bias.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        decoder: Distances | Offsets,
        *,
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
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        classes = self.classes(self.classification(list(maps)))
        towers = self.regression(list(maps))
        outputs = self.scales([level.float() for level in self.box_distances(towers)])
        logits, sides, centerness = self.grid.flatten(classes, outputs, self.centerness(towers))
        return QualityPredictions(priors, logits, self.decoder(priors, sides), centerness.squeeze(2))


class IoUHead(CenternessHead):
    """``CenternessHead`` whose quality is the IoU of the predicted box (PAA: Kim and Lee 2020, section 3.3; OTA)."""

    def forward(self, maps: Sequence[Tensor]) -> GeometricPredictions:
        """Return the predictions of all levels."""
        predictions = super().forward(maps)
        return GeometricPredictions(**{field.name: getattr(predictions, field.name) for field in fields(predictions)})


class Distances:
    """Decoder of distances to the four sides in strides, clamped to at least 0.

    Args:
        openable_sides: see ``poise.nn.distances``; changes gradients alone.
    """

    def __init__(self, openable_sides: bool = False) -> None:
        self.openable_sides = openable_sides

    def __call__(self, priors: Priors, outputs: Tensor) -> Tensor:
        """Return boxes (B,N,4) px."""
        sides = positive(outputs, True) if self.openable_sides else outputs.clamp(min=0)
        return decode_distances(priors.centers, sides * priors.strides[:, None])


class Offsets:
    """Decoder of offsets from anchors, encoded by a ``DeltaCoder``."""

    def __init__(self, coder: DeltaCoder) -> None:
        self.coder = coder

    def __call__(self, priors: Priors, outputs: Tensor) -> Tensor:
        """Return boxes (B,N,4) px."""
        return self.coder.decode(priors.boxes, outputs)
