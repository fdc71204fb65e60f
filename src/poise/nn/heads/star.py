"""VarifocalNet's head: box regression, star-shaped box feature, box refinement and the IACS (Zhang et al. 2021).

Each prior first predicts the distances l, t, r, b to the sides of an initial box. The star-shaped box feature reads
the feature map at nine points of that box by a deformable convolution: its corners, the centers of its sides, and the
prior itself (section 3.3). From these features come the refined box (section 3.4) and the IoU-aware classification
score (IACS, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.kernels.deformable_sampling import deform
from poise.nn.layers import (
    AnchorGrid,
    ConvNorm,
    DeformableConv,
    Scales,
    init_towers,
    output_conv,
    prior_bias,
    tower,
)
from poise.structures import Predictions, RefinedPredictions

MAX_LOG = 16.0  # upper bound of exponents, far above any box, so that finite features give finite boxes


def star_offsets(distances: Tensor, gradient_scale: float) -> Tensor:
    """Return offsets (B,18,H,W) that move the taps of a 3x3 kernel to the nine points of the star.

    Args:
        distances: l, t, r, b (B,4,H,W) in cells.
        gradient_scale: factor of the gradient that the distances receive from the offsets.
    """
    left, top, right, bottom = (distances.detach() * (1 - gradient_scale) + distances * gradient_scale).unbind(1)
    zero = torch.zeros_like(left)
    rows = (1 - top, zero, bottom - 1)
    columns = (1 - left, zero, right - 1)
    return torch.stack([offset for row in rows for column in columns for offset in (row, column)], 1)


class StarConv(nn.Module):
    """3x3 convolution whose taps lie on the star of the box that each prior predicts (section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Return the star-shaped box feature (B,C,H,W)."""
        return deform(features, offsets, self.weight)


class PlainConv(nn.Conv2d):
    """The same convolution with its taps on the regular grid (the article's ablation)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 1, 1, bias=False)
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        """Return the features (B,C,H,W); ``offsets`` are not used."""
        return super().forward(features)


class StarRefinement(nn.Module):
    """Factors that refine the distances of the initial box, one for each side (section 3.4)."""

    def __init__(self, channels: int, levels: int, conv: StarConv | PlainConv) -> None:
        super().__init__()
        self.conv = conv
        self.box_distances = output_conv(channels, 4)
        self.scales = Scales(levels)

    def forward(self, maps: list[Tensor], offsets: list[Tensor], distances: list[Tensor]) -> list[Tensor]:
        """Return the refined distances, (B,4,H_l,W_l) px for each level.

        Args:
            maps: regression features, (B,C,H_l,W_l) for each level.
            offsets: of the star, (B,18,H_l,W_l).
            distances: of the initial box, (B,4,H_l,W_l) px; they get no gradient from the product.
        """
        star = [self.conv(features, offset).relu() for features, offset in zip(maps, offsets, strict=True)]
        outputs = self.scales(self.box_distances(star))
        return [
            output.float().clamp(max=MAX_LOG).exp() * distance.detach()
            for output, distance in zip(outputs, distances, strict=True)
        ]


class StarHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``RefinedPredictions``, or to ``Predictions`` without ``refinement``.

    Args:
        conv: layer before the class scores: ``StarConv(channels)`` or ``PlainConv(channels)``.
        refinement: ``StarRefinement`` or None.
        distance_scales: px of a distance whose output is 0, one for each level.
        gradient_scale: factor of the gradient that the initial box receives from the star's offsets.
        deformable: makes the last convolution of both towers deformable.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        conv: StarConv | PlainConv,
        *,
        refinement: StarRefinement | None,
        depth: int = 3,
        groups: int = 32,
        distance_scales: Sequence[float] = (64, 128, 256, 512, 1024),
        gradient_scale: float = 0.1,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        if len(distance_scales) != len(grid.strides):
            raise ValueError(f"{len(distance_scales)} distance scales for {len(grid.strides)} levels")
        self.grid, self.num_classes = grid, num_classes
        self.distance_scales, self.gradient_scale = tuple(distance_scales), gradient_scale
        self.classification = tower(channels, depth, groups, deformable=deformable)
        self.regression = tower(channels, depth, groups, deformable=deformable)
        self.box_layer = ConvNorm(channels, channels, groups, bias=False)
        init_towers(self.classification, self.regression, self.box_layer)
        for module in (*self.classification.modules(), *self.regression.modules()):
            if isinstance(module, DeformableConv):  # as the authors: weights N(0, 0.01), offsets 0
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.conv_offset.weight)
        self.box_distances = output_conv(channels, 4)
        self.scales = Scales(len(grid.strides))
        self.conv, self.refinement = conv, refinement
        self.classes = output_conv(channels, num_classes, prior_bias())

    def forward(self, maps: Sequence[Tensor]) -> Predictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        classification, regression = self.classification(list(maps)), self.regression(list(maps))
        outputs = self.scales(self.box_distances(self.box_layer(regression)))
        initial, offsets, star = [], [], []
        for i, output in enumerate(outputs):
            distances = output.float().clamp(max=MAX_LOG).exp() * self.distance_scales[i]
            offset = star_offsets(distances / self.grid.strides[i], self.gradient_scale)
            star.append(self.conv(classification[i], offset).relu())
            initial.append(distances)
            offsets.append(offset)
        centers = priors.centers
        if self.refinement is None:
            logits, distances = self.grid.flatten(self.classes(star), initial)
            return Predictions(priors, logits, decode_distances(centers, distances))
        classes, refined = self.classes(star), self.refinement(regression, offsets, initial)
        logits, first, second = self.grid.flatten(classes, initial, refined)
        return RefinedPredictions(priors, logits, decode_distances(centers, second), decode_distances(centers, first))


def distance_scales(strides: Sequence[int]) -> tuple[float, ...]:
    """Return 8 strides a level, as the authors: FCOS's size ranges, 64 ... 1024 px for strides 8 ... 128."""
    return tuple(float(8 * stride) for stride in strides)
