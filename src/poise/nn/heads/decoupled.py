"""YOLOX's decoupled head: one tower for classes, one for boxes and objectness, on each level (Ge et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from poise.boxes import DeltaCoder
from poise.nn.layers import AnchorGrid, prior_bias
from poise.structures import JointDeltaPredictions


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm with YOLOX's settings, and SiLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        conv = nn.Conv2d(in_channels, channels, kernel, 1, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03), nn.SiLU(inplace=True))


class DecoupledLevel(nn.Module):
    """Head of one level."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, depth: int) -> None:
        super().__init__()
        self.stem = ConvNormAct(in_channels, channels, 1)
        self.classification = nn.Sequential(*[ConvNormAct(channels, channels, 3) for _ in range(depth)])
        self.regression = nn.Sequential(*[ConvNormAct(channels, channels, 3) for _ in range(depth)])
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.offsets = nn.Conv2d(channels, 4, 1)
        self.objectness = nn.Conv2d(channels, 1, 1)
        for output in (self.classes, self.objectness):
            nn.init.constant_(output.get_parameter("bias"), prior_bias())

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits (B,classes,H,W), offsets (B,4,H,W) and objectness (B,1,H,W) of a map (B,C,H,W)."""
        features = self.stem(level)
        boxes = self.regression(features)
        return self.classes(self.classification(features)), self.offsets(boxes), self.objectness(boxes)


class DecoupledHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``JointDeltaPredictions``; ``coder`` encodes offsets from the grid's cells."""

    def __init__(self, channels: int, num_classes: int, grid: AnchorGrid, coder: DeltaCoder, *, depth: int = 2) -> None:
        super().__init__()
        self.grid, self.num_classes, self.coder = grid, num_classes, coder
        self.levels = nn.ModuleList([DecoupledLevel(channels, channels, num_classes, depth) for _ in grid.strides])

    def forward(self, maps: Sequence[Tensor]) -> JointDeltaPredictions:
        """Return the predictions of all levels."""
        priors = self.grid(maps)
        outputs = [head(level) for head, level in zip(self.levels, maps, strict=True)]
        classes, offsets, objectness = zip(*outputs, strict=True)
        deltas, logits, quality = self.grid.flatten(offsets, classes, objectness)
        boxes = self.coder.decode(priors.cells, deltas)
        return JointDeltaPredictions(priors, logits, boxes, quality.squeeze(2), deltas)
