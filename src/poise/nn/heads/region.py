"""The two heads of Faster R-CNN (Ren et al. 2015) on a pyramid: region proposals, and classes and boxes of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from poise.boxes import DeltaCoder, area
from poise.nn.grids import AnchorGrid, flatten
from poise.nn.kernels.region_cells import align_regions
from poise.nn.kernels.winograd import Conv3x3
from poise.nn.towers import ConvNorm
from poise.structures import DeltaPredictions, Priors, RegionPredictions


class ProposalHead(nn.Module):
    """Pyramid maps (B,C,H_l,W_l) to class-agnostic ``DeltaPredictions`` (one logit: is it an object)."""

    def __init__(self, channels: int, grid: AnchorGrid, coder: DeltaCoder) -> None:
        super().__init__()
        self.grid, self.coder = grid, coder
        self.conv = Conv3x3(channels, channels)
        self.objectness = nn.Conv2d(channels, grid.count, 1)
        self.offsets = nn.Conv2d(channels, grid.count * 4, 1)
        for layer in (self.conv, self.objectness, self.offsets):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> DeltaPredictions:
        priors = self.grid(maps)
        hidden = [level.relu() for level in self.conv(list(maps))]
        logits = flatten([self.objectness(level) for level in hidden], 1)
        deltas = flatten([self.offsets(level) for level in hidden], 4)
        return DeltaPredictions(priors, logits, self.coder.decode(priors.boxes, deltas), deltas)


class RegionAlign(nn.Module):
    """Features of regions, each read off the pyramid level of its size (Lin et al. 2017, eq. 1).

    A region of side ``finest`` * 2^k lies on level k. On a GPU there is no synchronization: every level serves all
    regions, those of other levels as empty boxes, which give zeros, and the levels are added. On a CPU, where empty
    boxes take time and waiting takes none, each region lists its cells; the result is the same up to rounding.

    Args:
        strides: of the levels that serve, finest first.
        size: cells a side.
        finest: px, side up to twice which a region stays on the first level.
    """

    def __init__(self, strides: Sequence[int], size: int = 7, finest: float = 56.0) -> None:
        super().__init__()
        self.strides, self.size, self.finest = tuple(strides), size, finest

    def forward(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """(B,C,H_l,W_l) maps, coarser ones left over, and (B,S,4) boxes to (B*S,C,size,size) float32."""
        boxes = regions.flatten(0, 1).float()
        image = torch.arange(len(regions), device=boxes.device, dtype=boxes.dtype).repeat_interleave(regions.shape[1])
        served = self.level(boxes)
        if allows_dynamic_shapes(boxes):
            usable = served.isfinite()
            boxes, served = torch.where(usable[:, None], boxes, 0.0), torch.where(usable, served, 0.0).long()
            finest = [level.float() for level in maps[: len(self.strides)]]
            return align_regions(finest, self.strides, served, image.long(), boxes, self.size)
        levels = (self._read(maps[i], stride, image, boxes, served == i) for i, stride in enumerate(self.strides))
        return reduce(Tensor.add_, levels)

    def _read(self, level: Tensor, stride: int, image: Tensor, boxes: Tensor, here: Tensor) -> Tensor:
        """Features of the boxes that are ``here``, zeros for the others."""
        rois = torch.cat((image[:, None], torch.where(here[:, None], boxes, 0.0)), 1)
        return roi_align(level.float(), rois, self.size, 1 / stride, aligned=True)

    def level(self, boxes: Tensor) -> Tensor:
        """Which level serves each (...,4) box."""
        scale = area(boxes).clamp(min=0).sqrt()
        return (scale / self.finest + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)


def allows_dynamic_shapes(boxes: Tensor) -> bool:
    """Whether shapes may depend on the data at no cost: on a CPU, unless a graph is being captured."""
    return boxes.device.type == "cpu" and not torch.compiler.is_compiling()


class RegionHead(nn.Module):
    """Regions (B,S,4) of pyramid maps to ``RegionPredictions``, by fully connected layers.

    Args:
        channels: C of the maps.
        align: reads the features of regions.
        hidden: width of the fully connected layers.
        agnostic: one set of box offsets for all classes instead of one each.
        convs: convolutions before one fully connected layer; 0: two fully connected ones.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        align: RegionAlign,
        coder: DeltaCoder,
        hidden: int = 1024,
        agnostic: bool = False,
        convs: int = 0,
    ) -> None:
        super().__init__()
        self.align, self.coder, self.num_classes = align, coder, num_classes
        self.convs = nn.Sequential(*[ConvNorm(channels, channels, 32, bias=False) for _ in range(convs)])
        widths = [channels * align.size**2, *[hidden] * (1 if convs else 2)]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])
        self.classes = nn.Linear(hidden, num_classes + 1)  # background last
        self.offsets = nn.Linear(hidden, 4 if agnostic else 4 * num_classes)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for output, std in ((self.classes, 0.01), (self.offsets, 0.001)):
            nn.init.normal_(output.weight, std=std)
            nn.init.zeros_(output.bias)

    def forward(self, maps: Sequence[Tensor], regions: Tensor) -> RegionPredictions:
        batch, count = regions.shape[:2]
        hidden = self.convs(self.align(maps, regions)).flatten(1)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        logits = self.classes(hidden).float().unflatten(0, (batch, count))
        deltas = self.offsets(hidden).float().reshape(batch, count, -1, 4)
        strides = torch.full((count,), float(self.align.strides[0]), device=regions.device)
        priors = Priors(regions, strides, (count,))
        predictions = RegionPredictions(priors, logits[..., :-1], regions, logits[..., -1], deltas)
        best = predictions.deltas_of(predictions.logits.argmax(-1))
        return replace(predictions, boxes=self.coder.decode(regions, best))
