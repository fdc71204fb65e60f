"""RoIAlign (He et al. 2017) on a feature pyramid, on CPUs as one embedding bag over the cells of all levels.

Bilinear sampling is linear and separable: a bin of a region reads a run of rows times a run of columns, each with fixed
weights. A bin is therefore a weighted sum of cells, which ``embedding_bag`` computes for all channels at once, forward
and backward. torchvision's CPU kernel recomputes the samples for every channel, and its backward pass uses one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from poise.pairwise import stored_pairs


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
        if stored_pairs.allows_dynamic_shapes(boxes.device):
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
        scale = (boxes[..., 2:] - boxes[..., :2]).prod(-1).clamp(min=0).sqrt()
        return (scale / self.finest_scale + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)


def roi_align_levels(
    maps: Sequence[Tensor], strides: Sequence[int], level: Tensor, image: Tensor, boxes: Tensor, bins: int
) -> Tensor:
    """Return the features (R,C,bins,bins) of R regions, each read from one level of a pyramid.

    Equals torchvision's ``roi_align`` with ``aligned=True`` and the adaptive number of samples a bin
    (``sampling_ratio=-1``). As there, boxes receive no gradient.

    Args:
        maps: (B,C,H_l,W_l) of each level.
        strides: pixels a cell of each level.
        level: (R,) int64 level of each region.
        image: (R,) int64 image of each region.
        boxes: (R,4) xyxy pixels.
        bins: bins along each side of a region.
    """
    if not len(boxes):
        return maps[0].new_zeros(0, maps[0].shape[1], bins, bins)
    cells = torch.cat([values.permute(0, 2, 3, 1).flatten(0, 2) for values in maps])
    shapes = torch.tensor([(len(values), *values.shape[2:]) for values in maps])
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    _, height, width = shapes[level].unbind(1)
    corners = boxes.detach() * (1 / torch.tensor(strides, dtype=boxes.dtype))[level, None] - 0.5
    first_row, rows, row_weights = _axis_weights(corners[:, 1], corners[:, 3], height, bins)
    first_column, columns, column_weights = _axis_weights(corners[:, 0], corners[:, 2], width, bins)

    first = (starts[level] + image * height * width)[:, None] + first_row * width[:, None]
    first = (first[:, :, None] + first_column[:, None]).flatten()  # (R*bins*bins) first cell of each bin
    sizes = (rows[:, :, None] * columns[:, None]).flatten()  # (R*bins*bins) cells of each bin
    offsets = sizes.cumsum(0) - sizes
    bag = torch.arange(len(sizes)).repeat_interleave(sizes)  # (E,) bin of each cell that is read
    nth = torch.arange(len(bag)) - offsets[bag]
    region, position = bag // bins**2, bag % bins**2
    row_length = columns[region, position % bins]
    row, column = nth // row_length, nth % row_length
    index = first[bag] + row * width[region] + column
    weights = row_weights[region, position // bins, row] * column_weights[region, position % bins, column]
    features = functional.embedding_bag(index, cells, offsets, mode="sum", per_sample_weights=weights)
    return features.unflatten(0, (len(boxes), bins**2)).transpose(1, 2).unflatten(2, (bins, bins))


def _axis_weights(low: Tensor, high: Tensor, length: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which cells the bins of R regions read along one axis, and with what weights.

    Args:
        low, high: (R,) ends of each region, in cells.
        length: (R,) cells of the axis.

    Returns:
        The first cell (R,bins), the number of cells (R,bins) and their weights (R,bins,K), 0 beyond that number.
    """
    low, length = low[:, None, None], length[:, None, None]
    step = (high[:, None, None] - low) / bins
    samples = step.ceil()
    count = samples.clamp(min=1)
    nth = torch.arange(int(count.max()))
    position = low + torch.arange(bins)[:, None] * step + (nth.minimum(count - 1) + 0.5) * step / count
    weight = ((nth < samples) & (position >= -1) & (position <= length)) / count
    position = position.minimum(length - 1).clamp(min=0)
    below, above = position.floor().long(), position.ceil().long()
    first = below[:, :, 0]
    cells = above[:, :, -1] - first + 1
    weights = position.new_zeros(*cells.shape, int(cells.max()))
    weights.scatter_add_(2, below - first[..., None], weight * (1 - position.frac()))
    weights.scatter_add_(2, above - first[..., None], weight * position.frac())
    return first, cells, weights
