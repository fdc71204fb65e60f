"""RoIAlign (He et al. 2017) on CPUs as weighted sums of cells, all channels at a time.

Sampling is linear, and apart in both axes: a bin of a region is the product of a run of rows and a run of columns, each
with its weights. Written so, reading is an embedding bag over the cells of all levels, and its gradient that of a bag.
torchvision's kernel computes every sample anew for every channel, and its gradient in one thread alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def align_regions(
    maps: Sequence[Tensor], strides: Sequence[int], served: Tensor, image: Tensor, boxes: Tensor, bins: int
) -> Tensor:
    """(B,C,H_l,W_l) maps to (R,C,bins,bins), by the level and the image (R,) of each of the boxes (R,4).

    What torchvision's ``roi_align`` gives with ``aligned=True`` and as many samples a bin as its size asks for; boxes
    get no gradient, as there.
    """
    if not len(boxes):
        return maps[0].new_zeros(0, maps[0].shape[1], bins, bins)
    cells = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])
    shapes = torch.tensor([(len(level), *level.shape[2:]) for level in maps])
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    _, height, width = shapes[served].unbind(1)
    corners = boxes.detach() * (1 / torch.tensor(strides, dtype=boxes.dtype))[served, None] - 0.5
    first_row, rows, row_weights = _runs(corners[:, 1], corners[:, 3], height, bins)
    first_column, columns, column_weights = _runs(corners[:, 0], corners[:, 2], width, bins)

    first = (starts[served] + image * height * width)[:, None] + first_row * width[:, None]
    first = (first[:, :, None] + first_column[:, None]).flatten()  # (R*bins*bins), as what follows
    sizes = (rows[:, :, None] * columns[:, None]).flatten()
    begins = sizes.cumsum(0) - sizes
    bag = torch.arange(len(sizes)).repeat_interleave(sizes)  # (E), of every cell that is read, as what follows
    nth = torch.arange(len(bag)) - begins[bag]
    region, place = bag // bins**2, bag % bins**2
    across = columns[region, place % bins]
    row, column = nth // across, nth % across
    index = first[bag] + row * width[region] + column
    weights = row_weights[region, place // bins, row] * column_weights[region, place % bins, column]
    read = functional.embedding_bag(index, cells, begins, mode="sum", per_sample_weights=weights)
    return read.unflatten(0, (len(boxes), bins**2)).transpose(1, 2).unflatten(2, (bins, bins))


def _runs(low: Tensor, high: Tensor, length: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis of ``length`` cells, what the bins of ``low`` to ``high`` (all (R,)) read.

    Returns:
        The first cell (R,bins), how many from there (R,bins), and what each weighs (R,bins,K), zero beyond.
    """
    low, length = low[:, None, None], length[:, None, None]
    step = (high[:, None, None] - low) / bins
    samples = step.ceil()
    count = samples.clamp(min=1)
    nth = torch.arange(int(count.max()))
    at = low + torch.arange(bins)[:, None] * step + (nth.minimum(count - 1) + 0.5) * step / count
    share = ((nth < samples) & (at >= -1) & (at <= length)) / count
    at = at.minimum(length - 1).clamp(min=0)
    below, above = at.floor().long(), at.ceil().long()
    first = below[:, :, 0]
    runs = above[:, :, -1] - first + 1
    weights = at.new_zeros(*runs.shape, int(runs.max()))
    weights.scatter_add_(2, below - first[..., None], share * (1 - at.frac()))
    weights.scatter_add_(2, above - first[..., None], share * at.frac())
    return first, runs, weights
