"""DW's head: class, objectness and box of each point, and box sides read again at learned boundary points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.boxes import decode_distances, encode_distances
from poise.nn.center_prior import CenterPrior
from poise.nn.grids import AnchorGrid, flatten
from poise.nn.towers import Scale, init_towers, output_conv, prior_bias, tower
from poise.structures import JointPredictions


class BoundaryRefinement(nn.Module):
    """Each side of the coarse box is replaced by that side as predicted at a point on it (article, section 3.4).

    Nothing is detached, and the coarse box has no loss of its own. A point outside the map reads 0, as in the original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offsets = output_conv(channels, 8)

    def forward(self, features: Tensor, distances: Tensor, points: Tensor, stride: int) -> Tensor:
        """Refined distances l, t, r, b (B,4,H,W) px.

        Args:
            features: (B,C,H,W) of the regression tower.
            distances: (B,4,H,W) px of the coarse boxes.
            points: (H,W,2) x, y of the places in px.
            stride: px of a cell.
        """
        height, width = distances.shape[-2:]
        coarse = decode_distances(points, distances.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        rows, columns = self.offsets(features).float().unflatten(1, (4, 2)).unbind(2)
        left, top, right, bottom = (distances / stride).unbind(1)
        still = torch.zeros_like(left)
        rows = rows + torch.stack((still, -top, still, bottom), 1)
        columns = columns + torch.stack((-left, still, right, still), 1)
        rows = rows + torch.arange(height, device=rows.device, dtype=rows.dtype)[:, None]
        columns = columns + torch.arange(width, device=rows.device, dtype=rows.dtype)
        refined = sample(coarse, rows, columns)
        return encode_distances(points, refined.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu()


def sample(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear values of (B,K,H,W) maps, each at its own fractional rows and columns (B,K,H,W); 0 outside."""
    height, width = maps.shape[-2:]
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    values = functional.grid_sample(maps.reshape(-1, 1, height, width), grid.flatten(0, 1), align_corners=False)
    return values.reshape(maps.shape)


class DualWeightingHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``JointPredictions`` (objectness as ``quality``).

    Args:
        refinement: ``BoundaryRefinement(channels)`` or None.
        deformable: the last convolution of both towers is deformable.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        refinement: BoundaryRefinement | None,
        depth: int = 4,
        groups: int = 32,
        deformable: bool = False,
        sigma: float = 1.11,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = grid, num_classes
        self.classification = tower(channels, depth, groups, True, deformable)
        self.regression = tower(channels, depth, groups, True, deformable)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias(0.02))
        self.sides = output_conv(channels, 4, 4.0)
        self.objectness = output_conv(channels, 1)
        self.refinement = refinement
        self.scales = nn.ModuleList([Scale() for _ in grid.strides])
        self.center_prior = CenterPrior(num_classes, sigma, trained=False)  # read by the assigner, kept in checkpoints

    def forward(self, maps: Sequence[Tensor]) -> JointPredictions:
        priors = self.grid(maps)
        logits = flatten(self.classes(self.classification(list(maps))), self.num_classes)
        towers = self.regression(list(maps))
        objectness = flatten([self.objectness(features) for features in towers], 1).squeeze(2)
        centers = priors.centers[0].split(priors.level_sizes)
        distances = [
            self._distances(features, points.reshape(*features.shape[-2:], 2), scale, stride)
            for features, points, scale, stride in zip(towers, centers, self.scales, self.grid.strides, strict=True)
        ]
        return JointPredictions(priors, logits, decode_distances(priors.centers, flatten(distances, 4)), objectness)

    def _distances(self, features: Tensor, points: Tensor, scale: nn.Module, stride: int) -> Tensor:
        """l, t, r, b (B,4,H,W) px float32."""
        distances = scale(self.sides(features)).float().relu() * stride
        return distances if self.refinement is None else self.refinement(features, distances, points, stride)
