"""RepPoints' head: nine points a place, moved twice, are where features are read and what boxes are made from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.nn.head_layers import AnchorGrid, flatten_levels, init_towers, prior_bias, tower
from poise.nn.heads.star import StarConv
from poise.structures import Priors, RefinedPredictions

POINTS = 9  # as many as a 3x3 kernel has taps


class RepPointsHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``RefinedPredictions``.

    A place predicts points, and from the features read at them its classes and how the points move on. A box lies
    around the mean of its points; its sides are their deviations, scaled by two learned factors.

    Args:
        groups: of the group norm; 0 for none.
        gradient_scale: the part of the gradient that first points receive for where features are read.
        transfer_gradient_scale: the part of their gradient that the two factors receive.
    """

    taps: Tensor  # y, x of each tap of a 3x3 kernel

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        depth: int = 3,
        groups: int = 0,
        gradient_scale: float = 0.1,
        transfer_gradient_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = grid, num_classes
        self.gradient_scale, self.transfer_gradient_scale = gradient_scale, transfer_gradient_scale
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        self.first_conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.first_points = _output(channels, 2 * POINTS)
        self.class_conv, self.classes = StarConv(channels), _output(channels, num_classes, prior_bias())
        self.refined_conv, self.refined_points = StarConv(channels), _output(channels, 2 * POINTS)
        self.transfer = nn.Parameter(torch.zeros(2))  # logarithms of the factors of width and height
        init_towers(self.classification, self.regression, self.first_conv)
        steps = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("taps", torch.cartesian_prod(steps, steps).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> RefinedPredictions:
        priors = self.grid(maps)
        levels = [self._level(level) for level in maps]
        logits = flatten_levels([logits for logits, _, _ in levels], self.num_classes)
        first = self._boxes(priors, flatten_levels([points for _, points, _ in levels], 2 * POINTS))
        refined = self._boxes(priors, flatten_levels([points for _, _, points in levels], 2 * POINTS))
        return RefinedPredictions(priors, logits, refined, first)

    def _level(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B,C,H,W), first and second points (B,18,H,W): y, x of each from the place, in cells."""
        classification, regression = self.classification(features), self.regression(features)
        points = self.first_points(self.first_conv(regression).relu()).float()
        offsets = points.detach() * (1 - self.gradient_scale) + points * self.gradient_scale - self.taps
        logits = self.classes(self.class_conv(classification, offsets).relu())
        moves = self.refined_points(self.refined_conv(regression, offsets).relu()).float()
        return logits, points, points.detach() + moves

    def _boxes(self, priors: Priors, points: Tensor) -> Tensor:
        """Boxes (B,N,4) px of points (B,N,18), by their first two moments (article, section 4.1)."""
        transfer = (
            self.transfer.detach() * (1 - self.transfer_gradient_scale) + self.transfer * self.transfer_gradient_scale
        )
        columns_and_rows = points.unflatten(2, (POINTS, 2)).flip(3)  # x before y
        strides = priors.strides[:, None]
        middle = priors.centers + columns_and_rows.mean(2) * strides
        half = columns_and_rows.std(2) * transfer.exp() * strides
        return torch.cat((middle - half, middle + half), 2)


def _output(channels: int, outputs: int, bias: float = 0.0) -> nn.Conv2d:
    """A 1x1 output convolution, initialized N(0, 0.01) with a constant bias."""
    conv = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    return conv
