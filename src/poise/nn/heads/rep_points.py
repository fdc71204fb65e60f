"""RepPoints' head: nine points per prior, where features are read and from which boxes are made (Yang et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.nn.heads.star import StarConv
from poise.nn.layers import AnchorGrid, init_towers, prior_bias, tower
from poise.structures import Priors, RefinedPredictions

POINTS = 9  # one for each tap of a 3x3 kernel


class RepPointsHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``RefinedPredictions``.

    Each prior predicts initial points. A deformable convolution reads the features at these points, and from them come
    the classes and the offsets of the refined points. The center of a box is the mean of its points, its width and
    height are their standard deviations times two learned factors (the moment-based form).

    Args:
        depth: layers of each tower.
        groups: of the group norm; 0 for none.
        gradient_scale: factor of the gradient that initial points receive as offsets of the deformable convolution.
        transfer_gradient_scale: factor of the gradient that the two factors receive.
    """

    taps: Tensor  # y, x of each tap of a 3x3 kernel

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        depth: int = 3,
        *,
        groups: int = 0,
        gradient_scale: float = 0.1,
        transfer_gradient_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = grid, num_classes
        self.gradient_scale, self.transfer_gradient_scale = gradient_scale, transfer_gradient_scale
        self.classification = tower(channels, depth, groups)
        self.regression = tower(channels, depth, groups)
        self.initial_conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.initial_points = _output(channels, 2 * POINTS)
        self.class_conv, self.classes = StarConv(channels), _output(channels, num_classes, prior_bias())
        self.refined_conv, self.refined_points = StarConv(channels), _output(channels, 2 * POINTS)
        self.transfer = nn.Parameter(torch.zeros(2))  # logarithms of the factors of width and height
        init_towers(self.classification, self.regression, self.initial_conv)
        steps = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("taps", torch.cartesian_prod(steps, steps).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> RefinedPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        logits, refined, initial = self.grid.flatten(*self._points(list(maps)))
        return RefinedPredictions(priors, logits, self._boxes(priors, refined), self._boxes(priors, initial))

    def _points(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return for each level logits (B,C,H,W), refined and initial points (B,18,H,W): y, x of each in cells."""
        logits, initial, refined, part = [], [], [], self.gradient_scale
        for classes, boxes in zip(self.classification(maps), self.regression(maps), strict=True):
            points = self.initial_points(self.initial_conv(boxes).relu()).float()
            offsets = points.detach() * (1 - part) + points * part - self.taps
            moves = self.refined_points(self.refined_conv(boxes, offsets).relu()).float()
            logits.append(self.classes(self.class_conv(classes, offsets).relu()))
            initial.append(points)
            refined.append(points.detach() + moves)
        return logits, refined, initial

    def _boxes(self, priors: Priors, points: Tensor) -> Tensor:
        """Return the boxes (B,N,4) px of points (B,N,18) in cells: y, x of each, from their moments (section 4.1)."""
        part = self.transfer_gradient_scale
        transfer = self.transfer.detach() * (1 - part) + self.transfer * part
        xy = points.unflatten(2, (POINTS, 2)).flip(3)
        strides = priors.strides[:, None]
        center = priors.centers + xy.mean(2) * strides
        half = xy.std(2) * transfer.exp() * strides
        return torch.cat((center - half, center + half), 2)


def _output(channels: int, outputs: int, bias: float = 0.0) -> nn.Conv2d:
    """Return a 1x1 output convolution, initialized with weights N(0, 0.01) and a constant bias."""
    conv = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.get_parameter("bias"), bias)
    return conv
