"""DW's head: classes, objectness and a coarse box, and box refinement at learned boundary points (Li et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.assign.center_priors import CenterPrior
from poise.boxes import decode_distances
from poise.nn.distances import positive
from poise.nn.layers import AnchorGrid, Scales, init_towers, output_conv, prior_bias, tower
from poise.structures import JointPredictions


class BoundaryRefinement(nn.Module):
    """Box refinement: replace each side of the coarse box by that side as predicted at a boundary point (section 3.4).

    The boundary point lies on the side of the coarse box, moved by a learned offset. Gradients reach the coarse box,
    which has no loss of its own. A point outside the map reads 0, as in the original code.
    """

    def __init__(self, channels: int, openable_sides: bool = False) -> None:
        super().__init__()
        self.openable_sides = openable_sides
        self.offsets = output_conv(channels, 8)

    def forward(
        self, maps: list[Tensor], distances: list[Tensor], centers: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """Return the refined distances l, t, r, b of each level, (B,4,H_l,W_l) px.

        Args:
            maps: features (B,C,H_l,W_l) of the regression tower.
            distances: of the coarse boxes, (B,4,H_l,W_l) px.
            centers: of the cells, (H_l*W_l,2) px.
            strides: px of a cell of each level.
        """
        levels = zip(self.offsets(maps), distances, centers, strides, strict=True)
        return [self._refine(*level) for level in levels]

    def _refine(self, offsets: Tensor, distances: Tensor, centers: Tensor, stride: int) -> Tensor:
        """Refine the distances of one level; ``offsets`` (B,8,H,W) are y, x of the boundary point of each side."""
        height, width = distances.shape[-2:]
        points = centers.T.reshape(2, height, width)
        coarse = torch.cat((points - distances[:, :2], points + distances[:, 2:]), 1)  # x1, y1, x2, y2
        rows, columns = offsets.float().unflatten(1, (4, 2)).unbind(2)
        left, top, right, bottom = (distances / stride).unbind(1)
        zero = torch.zeros_like(left)
        rows = rows + torch.stack((zero, -top, zero, bottom), 1)
        columns = columns + torch.stack((-left, zero, right, zero), 1)
        rows = rows + torch.arange(height, device=rows.device, dtype=rows.dtype)[:, None]
        columns = columns + torch.arange(width, device=rows.device, dtype=rows.dtype)
        refined = bilinear_sample(coarse, rows, columns)
        return positive(torch.cat((points - refined[:, :2], refined[:, 2:] - points), 1), self.openable_sides)


def bilinear_sample(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate (B,K,H,W) maps, each at its own fractional rows and columns (B,K,H,W); 0 outside."""
    height, width = maps.shape[-2:]
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    values = functional.grid_sample(maps.reshape(-1, 1, height, width), grid.flatten(0, 1), align_corners=False)
    return values.reshape(maps.shape)


class DualWeightingHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``JointPredictions``, with the objectness as ``quality``.

    Args:
        refinement: ``BoundaryRefinement(channels)`` or None.
        deformable: makes the last convolution of both towers deformable.
        sigma: width of the center prior in strides, a constant that checkpoints store.
        openable_sides: see ``poise.nn.distances``; changes gradients alone.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        grid: AnchorGrid,
        refinement: BoundaryRefinement | None,
        *,
        depth: int = 4,
        groups: int = 32,
        deformable: bool = False,
        sigma: float = 1.11,
        openable_sides: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes, self.openable_sides = grid, num_classes, openable_sides
        self.classification = tower(channels, depth, groups, True, deformable=deformable)
        self.regression = tower(channels, depth, groups, True, deformable=deformable)
        init_towers(self.classification, self.regression)
        self.classes = output_conv(channels, num_classes, prior_bias(0.02))
        self.box_distances = output_conv(channels, 4, 4.0)
        self.objectness = output_conv(channels, 1)
        self.refinement = refinement
        self.scales = Scales(len(grid.strides))
        self.center_prior = CenterPrior(num_classes, sigma, trained=False)

    def forward(self, maps: Sequence[Tensor]) -> JointPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        classes, centers = self.classes(self.classification(list(maps))), priors.centers
        regression = self.regression(list(maps))
        objectness = self.objectness(regression)
        outputs = self.scales(self.box_distances(regression))
        distances = [
            positive(output.float(), self.openable_sides) * stride
            for output, stride in zip(outputs, self.grid.strides, strict=True)
        ]
        if self.refinement is not None:
            by_level = centers[0].split(priors.level_sizes)
            distances = self.refinement(regression, distances, by_level, self.grid.strides)
        logits, quality, sides = self.grid.flatten(classes, objectness, distances)
        return JointPredictions(priors, logits, decode_distances(centers, sides), quality.squeeze(2))
