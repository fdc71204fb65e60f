"""The heads of Faster R-CNN (Ren et al. 2015) on a feature pyramid: region proposal network and box head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from poise.boxes import DeltaCoder
from poise.nn.kernels.roi_align import RegionAlign
from poise.nn.layers import AnchorGrid, Conv3x3, ConvNorm, single
from poise.structures import DeltaPredictions, Priors, RegionPredictions


class ProposalHead(nn.Module):
    """Region proposal network: predicts one objectness logit and one box of every anchor.

    A 3x3 convolution with ReLU, shared by all levels, then a 1x1 convolution each for objectness and box deltas.

    Args:
        channels: C of the maps.
        grid: the anchors.
        coder: decodes box deltas.
    """

    def __init__(self, channels: int, grid: AnchorGrid, coder: DeltaCoder) -> None:
        super().__init__()
        self.grid, self.coder = grid, coder
        self.conv = Conv3x3(channels, channels)
        self.objectness = nn.Conv2d(channels, grid.count, 1)
        self.offsets = nn.Conv2d(channels, grid.count * 4, 1)
        for layer in (self.conv, self.objectness, self.offsets):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, maps: Sequence[Tensor]) -> DeltaPredictions:
        """Predict from pyramid maps (B,C,H_l,W_l); logits are (B,N,1)."""
        priors = self.grid(maps)
        hidden = [level.relu() for level in self.conv(list(maps))]
        logits, deltas = self.grid.flatten(
            [self.objectness(level) for level in hidden], [self.offsets(level) for level in hidden]
        )
        return DeltaPredictions(priors, logits, self.coder.decode(priors.boxes, deltas), deltas)


class RegionHead(nn.Module):
    """Box head of Fast R-CNN: classifies regions and predicts their box deltas by fully connected layers.

    Args:
        channels: C of the maps.
        align: reads the features of regions.
        coder: decodes box deltas.
        hidden: width of the fully connected layers.
        class_agnostic: predict one set of box deltas for all classes instead of one for each class.
        convs: 3x3 convolutions ahead of one fully connected layer; 0: two fully connected layers.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        align: RegionAlign,
        coder: DeltaCoder,
        *,
        hidden: int = 1024,
        class_agnostic: bool = False,
        convs: int = 0,
    ) -> None:
        super().__init__()
        self.align, self.coder, self.num_classes = align, coder, num_classes
        self.kind: type[RegionPredictions] = (
            RegionPredictions  # how logits become scores; a criterion may need a subclass
        )
        self.convs = nn.Sequential(*[ConvNorm(channels, channels, 32, bias=False) for _ in range(convs)])
        widths = [channels * align.size**2, *[hidden] * (1 if convs else 2)]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])
        self.classes = nn.Linear(hidden, num_classes + 1)  # background last
        self.offsets = nn.Linear(hidden, 4 if class_agnostic else 4 * num_classes)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))
        for output, std in ((self.classes, 0.01), (self.offsets, 0.001)):
            nn.init.normal_(output.weight, std=std)
            nn.init.zeros_(output.bias)

    def forward(self, maps: Sequence[Tensor], regions: Tensor) -> RegionPredictions:
        """Predict from maps (B,C,H_l,W_l) at regions (B,S,4), xyxy pixels."""
        batch, count = regions.shape[:2]
        hidden = self.convs(self.align(maps, regions)).flatten(1)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        logits = single(self.classes(hidden)).unflatten(0, (batch, count))
        deltas = single(self.offsets(hidden)).reshape(batch, count, -1, 4)
        strides = torch.full((count,), float(self.align.strides[0]), device=regions.device)
        priors = Priors(regions, strides, (count,))
        predictions = self.kind(priors, logits[..., :-1], regions, logits[..., -1], deltas)
        best = predictions.deltas_of(predictions.logits.argmax(-1))
        return replace(predictions, boxes=self.coder.decode(regions, best))
