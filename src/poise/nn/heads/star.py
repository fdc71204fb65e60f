"""VarifocalNet's head: a first box shapes the points at which features for the class and the final box are read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.deformable import DeformableConv, deform
from poise.nn.grids import AnchorGrid, flatten
from poise.nn.towers import ConvNorm, Scale, init_towers, output_conv, prior_bias, tower
from poise.structures import Predictions, Priors, RefinedPredictions

LARGEST_LOG = 16.0  # exponents are cut here, far above any box, so that finite features give finite boxes


def star_offsets(distances: Tensor, gradient: float) -> Tensor:
    """Offsets (B,18,H,W) that move a 3x3 kernel's taps onto the box: its corners, side centers and the place itself.

    Args:
        distances: l, t, r, b (B,4,H,W) in cells.
        gradient: the part of the gradient that the box receives from here.
    """
    left, top, right, bottom = (distances.detach() * (1 - gradient) + distances * gradient).unbind(1)
    still = torch.zeros_like(left)
    rows = [side - step for step, side in ((-1, -top), (0, still), (1, bottom))]
    columns = [side - step for step, side in ((-1, -left), (0, still), (1, right))]
    return torch.stack([axis for row in rows for column in columns for axis in (row, column)], 1)


class StarConv(nn.Module):
    """A 3x3 convolution whose taps lie on the box that each place predicts (article, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        return deform(x, offsets, self.weight)


class GridConv(nn.Conv2d):
    """In a ``StarConv``'s place: the same convolution with its taps on the grid (the article's ablation)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 1, 1, bias=False)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class StarRefinement(nn.Module):
    """Factors by which the sides of the first box are corrected."""

    def __init__(self, channels: int, levels: int, conv: StarConv | GridConv) -> None:
        super().__init__()
        self.conv = conv
        self.sides = output_conv(channels, 4)
        self.scales = nn.ModuleList([Scale() for _ in range(levels)])

    def forward(self, features: Tensor, offsets: Tensor, distances: Tensor, level: int) -> Tensor:
        """Refined distances (B,4,H,W) px; the first ones get no gradient from here but through the offsets."""
        outputs = self.sides(self.conv(features, offsets).relu())
        return self.scales[level](outputs).float().clamp(max=LARGEST_LOG).exp() * distances.detach()


class StarHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``RefinedPredictions``, or to ``Predictions`` without ``refinement``.

    Args:
        conv: the layer before the classes: ``StarConv(channels)`` or ``GridConv(channels)``.
        refinement: ``StarRefinement`` or None.
        reach: px of a distance whose output is 0, one a level.
        gradient: the part of the offsets' gradient that reaches the first box.
        deformable: the last convolution of both towers is deformable.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        conv: StarConv | GridConv,
        refinement: StarRefinement | None,
        depth: int = 3,
        groups: int = 32,
        reach: Sequence[float] = (64, 128, 256, 512, 1024),
        gradient: float = 0.1,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        if len(reach) != len(grid.strides):
            raise ValueError(f"{len(reach)} reaches for {len(grid.strides)} levels")
        self.grid, self.num_classes, self.reach, self.gradient = grid, num_classes, tuple(reach), gradient
        self.classification = tower(channels, depth, groups, deformable=deformable)
        self.regression = tower(channels, depth, groups, deformable=deformable)
        self.box_layer = ConvNorm(channels, channels, groups, bias=False)
        init_towers(self.classification, self.regression, self.box_layer)
        _init_deformable(self.classification, self.regression)
        self.sides = output_conv(channels, 4)
        self.scales = nn.ModuleList([Scale() for _ in grid.strides])
        self.conv, self.refinement = conv, refinement
        self.classes = output_conv(channels, num_classes, prior_bias())

    def forward(self, maps: Sequence[Tensor]) -> Predictions:
        priors = self.grid(maps)
        levels = [self._level(features, level) for level, features in enumerate(maps)]
        logits = flatten([logits for logits, _, _ in levels], self.num_classes)
        first = _boxes(priors, [distances for _, distances, _ in levels])
        if self.refinement is None:
            return Predictions(priors, logits, first)
        return RefinedPredictions(priors, logits, _boxes(priors, [refined for _, _, refined in levels]), first)

    def _level(self, features: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B,C,H,W), first and refined distances (B,4,H,W) px."""
        classification, regression = self.classification(features), self.regression(features)
        outputs = self.scales[level](self.sides(self.box_layer(regression))).float()
        distances = outputs.clamp(max=LARGEST_LOG).exp() * self.reach[level]
        offsets = star_offsets(distances / self.grid.strides[level], self.gradient)
        logits = self.classes(self.conv(classification, offsets).relu())
        if self.refinement is None:
            return logits, distances, distances
        return logits, distances, self.refinement(regression, offsets, distances, level)


def _boxes(priors: Priors, distances: Sequence[Tensor]) -> Tensor:
    return decode_distances(priors.centers, flatten(distances, 4))


def _init_deformable(*towers: nn.Module) -> None:
    """The authors' start of deformable layers: weights N(0, 0.01), no offsets."""
    for module in (module for part in towers for module in part.modules()):
        if isinstance(module, DeformableConv):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.conv_offset.weight)


def strides_reach(strides: Sequence[int]) -> tuple[float, ...]:
    """FCOS's size ranges for these strides, the last doubled: 64 … 1024 px for strides 8 … 128."""
    return tuple(float(8 * stride) for stride in strides)
