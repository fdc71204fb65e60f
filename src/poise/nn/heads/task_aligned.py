"""TOOD's task-aligned head: one tower, layer attention for each task, alignment (Feng et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.nn.heads.dual_weighting import bilinear_sample
from poise.nn.heads.star import MAX_LOG
from poise.nn.layers import AnchorGrid, ConvNorm, Scales, init_towers, output_conv, prior_bias
from poise.structures import GeometricPredictions

ATTENTION_REDUCTION = 8  # channels of the tower per channel of the layer attention
ALIGNMENT_REDUCTION = 4  # channels of the tower per channel of the alignment networks


class TaskDecomposition(nn.Module):
    """Features of one task from all layers of the tower, weighted by layer attention (eq. 1 and 2).

    Args:
        channels: C of a layer.
        depth: number of layers.
        groups: of the group norm.
    """

    def __init__(self, channels: int, depth: int, groups: int = 32) -> None:
        super().__init__()
        hidden = max(1, channels // ATTENTION_REDUCTION)
        self.attention = nn.Sequential(
            nn.Conv2d(channels * depth, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, depth, 1), nn.Sigmoid()
        )
        self.conv = nn.Conv2d(channels * depth, channels, 1, bias=False)
        self.norm = nn.GroupNorm(min(groups, max(1, channels // 4)), channels)
        _normal(self.attention, 0.001)
        nn.init.normal_(self.conv.weight, std=0.01)

    def forward(self, layers: Tensor) -> Tensor:
        """Map all layers (B,depth*C,H,W) to features (B,C,H,W); the attention is multiplied into the kernel."""
        height, width = layers.shape[-2:]
        attention = self.attention(layers.mean((2, 3), keepdim=True)).flatten(1)
        kernel = self.conv.weight.squeeze(3).squeeze(2).unflatten(1, (attention.shape[1], -1))
        kernel = (attention[:, None, :, None] * kernel).flatten(2)
        reduced = torch.bmm(kernel, layers.flatten(2).to(kernel.dtype)).unflatten(2, (height, width))
        return self.norm(reduced).relu()


class TaskAlignedHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``GeometricPredictions``.

    The class score is the geometric mean of a class output and an alignment output. Each side of a box is read again
    at a learned offset; where the result has no area, the box stays as it was.
    """

    def __init__(self, channels: int, num_classes: int, grid: AnchorGrid, depth: int = 6, *, groups: int = 32) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth}: the tower needs at least one layer")
        self.grid, self.num_classes = grid, num_classes
        self.tower = nn.ModuleList([ConvNorm(channels, channels, groups, bias=False) for _ in range(depth)])
        init_towers(self.tower)
        self.classification = TaskDecomposition(channels, depth, groups)
        self.regression = TaskDecomposition(channels, depth, groups)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.box_distances = output_conv(channels, 4)
        self.alignment = _alignment(channels, depth, 1, 0.01, prior_bias())
        self.offsets = _alignment(channels, depth, 8, 0.001)
        self.scales = Scales(len(grid.strides))

    def forward(self, maps: Sequence[Tensor]) -> GeometricPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        features, layers = list(maps), []
        for layer in self.tower:
            features = layer(features)
            layers.append(features)
        stacked = [torch.cat(level, 1) for level in zip(*layers, strict=True)]
        classes = self.classes([self.classification(level) for level in stacked])
        alignment = [self.alignment(level) for level in stacked]
        outputs = self.box_distances([self.regression(level) for level in stacked])
        distances = self.scales([level.float().clamp(max=MAX_LOG).exp() for level in outputs])
        centers = priors.centers[0].split(priors.level_sizes)
        levels = zip(distances, stacked, centers, self.grid.strides, strict=True)
        aligned = [self._aligned_boxes(*level) for level in levels]
        logits, quality, boxes = self.grid.flatten(classes, alignment, aligned)
        return GeometricPredictions(priors, logits, boxes, quality.squeeze(2))

    def _aligned_boxes(self, distances: Tensor, stacked: Tensor, centers: Tensor, stride: int) -> Tensor:
        """Read each side of the boxes at its own learned offset from the prior, (B,4,H,W) px.

        Args:
            distances: l, t, r, b (B,4,H,W) in cells.
            stacked: all layers of the tower (B,depth*C,H,W).
            centers: of the priors (H*W,2) px.
            stride: px of a cell.
        """
        height, width = distances.shape[-2:]
        points = (centers / stride).T.reshape(2, height, width)
        boxes = torch.cat((points - distances[:, :2], points + distances[:, 2:]), 1)
        rows, columns = self.offsets(stacked).float().unflatten(1, (4, 2)).unbind(2)
        rows = rows + torch.arange(height, device=rows.device, dtype=rows.dtype)[:, None]
        columns = columns + torch.arange(width, device=rows.device, dtype=rows.dtype)
        moved = bilinear_sample(boxes, rows, columns)
        inverted = (moved[:, :1] > moved[:, 2:3]) | (moved[:, 1:2] > moved[:, 3:])
        return torch.where(inverted, boxes, moved) * stride


def _alignment(channels: int, depth: int, outputs: int, std: float, bias: float = 0.0) -> nn.Sequential:
    """Return an alignment network over all layers of the tower: 1x1 convolution, ReLU, 3x3 convolution."""
    hidden = max(1, channels // ALIGNMENT_REDUCTION)
    network = nn.Sequential(
        nn.Conv2d(channels * depth, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 3, 1, 1)
    )
    _normal(network, std)
    nn.init.constant_(network[2].get_parameter("bias"), bias)
    return network


def _normal(network: nn.Module, std: float) -> None:
    """Initialize convolutions with weights N(0, std) and biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.get_parameter("bias"))
