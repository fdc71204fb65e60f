"""TOOD's head: both tasks read one tower through their own weighting of its layers (Feng et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.boxes import decode_distances
from poise.nn.grids import AnchorGrid, flatten
from poise.nn.heads.dual_weighting import sample
from poise.nn.heads.star import LARGEST_LOG
from poise.nn.towers import ConvNorm, Scale, init_towers, output_conv, prior_bias
from poise.structures import GeometricPredictions

REDUCTION = 8  # channels of the tower for one of the small networks that weigh its layers
ALIGNMENT = 4  # and for one of the networks that align scores and boxes


class TaskDecomposition(nn.Module):
    """One task's features from all layers of the tower, weighted by what the whole map holds (eq. 1 and 2).

    Args:
        channels: C of a layer.
        depth: layers.
        groups: of the group norm.
    """

    def __init__(self, channels: int, depth: int, groups: int = 32) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.attention = nn.Sequential(
            nn.Conv2d(channels * depth, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, depth, 1), nn.Sigmoid()
        )
        self.conv = nn.Conv2d(channels * depth, channels, 1, bias=False)
        self.norm = nn.GroupNorm(min(groups, max(1, channels // 4)), channels)
        _normal(self.attention, 0.001)
        nn.init.normal_(self.conv.weight, std=0.01)

    def forward(self, layers: Tensor) -> Tensor:
        """(B,depth*C,H,W), layers outermost, to (B,C,H,W); the weights are multiplied into the kernel."""
        height, width = layers.shape[-2:]
        attention = self.attention(layers.mean((2, 3), keepdim=True)).flatten(1)
        kernel = self.conv.weight.squeeze(3).squeeze(2).unflatten(1, (attention.shape[1], -1))
        kernel = (attention[:, None, :, None] * kernel).flatten(2)
        reduced = torch.bmm(kernel, layers.flatten(2).to(kernel.dtype)).unflatten(2, (height, width))
        return self.norm(reduced).relu()


class TaskAlignedHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to ``GeometricPredictions``.

    The class score is the geometric mean of two outputs. The sides of a box are read again at learned points around
    its place; where that leaves no box, the first one stays.
    """

    def __init__(self, channels: int, num_classes: int, grid: AnchorGrid, depth: int = 6, groups: int = 32) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth}: both tasks read the layers of one tower, which needs at least one")
        self.grid, self.num_classes = grid, num_classes
        self.tower = nn.ModuleList([ConvNorm(channels, channels, groups, bias=False) for _ in range(depth)])
        init_towers(self.tower)
        self.classification = TaskDecomposition(channels, depth, groups)
        self.regression = TaskDecomposition(channels, depth, groups)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.sides = output_conv(channels, 4)
        self.alignment = _alignment(channels, depth, 1, 0.01, prior_bias())
        self.offsets = _alignment(channels, depth, 8, 0.001)
        self.scales = nn.ModuleList([Scale() for _ in grid.strides])

    def forward(self, maps: Sequence[Tensor]) -> GeometricPredictions:
        priors = self.grid(maps)
        centers = priors.centers[0].split(priors.level_sizes)
        levels = [self._level(features, level, centers[level]) for level, features in enumerate(maps)]
        logits = flatten([logits for logits, _, _ in levels], self.num_classes)
        quality = flatten([quality for _, quality, _ in levels], 1).squeeze(2)
        return GeometricPredictions(priors, logits, flatten([boxes for _, _, boxes in levels], 4), quality)

    def _level(self, features: Tensor, level: int, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B,C,H,W), alignment logit (B,1,H,W) and boxes (B,4,H,W) px."""
        layers = []
        for layer in self.tower:
            features = layer(features)
            layers.append(features)
        joined, stride = torch.cat(layers, 1), self.grid.strides[level]
        outputs = self.scales[level](self.sides(self.regression(joined)).float().clamp(max=LARGEST_LOG).exp())
        points = (centers / stride).reshape(*features.shape[-2:], 2)
        boxes = decode_distances(points, outputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        boxes = _resampled(boxes, self.offsets(joined).float())
        return self.classes(self.classification(joined)), self.alignment(joined), boxes * stride


def _resampled(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Each side of (B,4,H,W) boxes read at its own offset (B,8,H,W: y, x of each side) in cells from the place."""
    height, width = boxes.shape[-2:]
    rows, columns = offsets.unflatten(1, (4, 2)).unbind(2)
    rows = rows + torch.arange(height, device=rows.device, dtype=rows.dtype)[:, None]
    columns = columns + torch.arange(width, device=rows.device, dtype=rows.dtype)
    moved = sample(boxes, rows, columns)
    turned = (moved[:, :1] > moved[:, 2:3]) | (moved[:, 1:2] > moved[:, 3:])
    return torch.where(turned, boxes, moved)


def _alignment(channels: int, depth: int, outputs: int, std: float, bias: float = 0.0) -> nn.Sequential:
    """1x1, ReLU, 3x3 over all layers of the tower."""
    hidden = max(1, channels // ALIGNMENT)
    network = nn.Sequential(
        nn.Conv2d(channels * depth, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 3, 1, 1)
    )
    _normal(network, std)
    nn.init.constant_(network[2].bias, bias)  # type: ignore[arg-type]
    return network


def _normal(network: nn.Module, std: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
