"""RoIAlign (He et al. 2017) on a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from poise.boxes import area
from poise.nn.kernels.roi_align_cpu import roi_align_levels
from poise.pairwise import pairs


class RegionAlign(nn.Module):
    """RoIAlign that reads each region from the pyramid level of its size (FPN: Lin et al. 2017, eq. 1).

    A region of side ``finest_scale`` * 2^k is read from level k. Where dynamic shapes cost a synchronization (on
    accelerators and in captured graphs), every level reads all regions: regions of other levels become empty boxes,
    whose features are zero, and the levels are summed. On a CPU each region is read from its own level alone. Both give
    the same features up to rounding.

    Args:
        strides: of the levels that are read, finest first.
        size: bins along each side of a region.
        finest_scale: px, a region up to twice this side is read from the first level.
    """

    def __init__(self, strides: Sequence[int], size: int = 7, finest_scale: float = 56.0) -> None:
        super().__init__()
        self.strides, self.size, self.finest_scale = tuple(strides), size, finest_scale

    def forward(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Return features (B*S,C,size,size) float32 of regions (B,S,4), xyxy pixels, of maps (B,C,H_l,W_l)."""
        maps = [values.float() for values in maps[: len(self.strides)]]
        boxes = regions.flatten(0, 1).float()
        image = torch.arange(len(regions), device=boxes.device, dtype=boxes.dtype).repeat_interleave(regions.shape[1])
        level = self.levels(boxes)
        if pairs.allows_dynamic_shapes(boxes.device):
            finite = level.isfinite()
            boxes, level = torch.where(finite[:, None], boxes, 0.0), torch.where(finite, level, 0.0).long()
            return roi_align_levels(maps, self.strides, level, image.long(), boxes, self.size)
        features: list[Tensor] = []
        for i, (values, stride) in enumerate(zip(maps, self.strides, strict=True)):
            rois = torch.cat((image[:, None], torch.where((level == i)[:, None], boxes, 0.0)), 1)
            read = roi_align(values, rois, self.size, 1 / stride, aligned=True)
            features = [features[0].add_(read)] if features else [read]
        return features[0]

    def levels(self, boxes: Tensor) -> Tensor:
        """Return the level (...,) float32 that each box (...,4) is read from."""
        scale = area(boxes).clamp(min=0).sqrt()
        return (scale / self.finest_scale + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)
