"""The priors of each level that are nearest to the center of each object."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.boxes import planar
from poise.pairwise.devices import cached_slices
from poise.pairwise.topk import smallest
from poise.structures import Priors


def nearest_per_level(priors: Priors, boxes: Tensor, topk: int, usable: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``topk`` nearest priors of each level and object; ties go to the lowest index.

    Args:
        boxes: (B,G,4) objects.
        usable: (B,N) bool, priors that may be taken; all.

    Returns:
        Index into the N priors and whether a prior is usable, both (B,G,K) with K the sum over levels of at most
        ``topk``.
    """
    x, y = planar(priors.centers.float()).unbind(-1)
    if usable is not None:
        x = torch.where(usable, x, torch.inf)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    found, start = [], 0
    for size in priors.level_sizes:
        level, chunks = slice(start, start + size), []
        for part in cached_slices(len(boxes), size, boxes.shape[1], boxes.device):
            across = center[:, part, None, 0] - x[:, None, level]
            along = center[:, part, None, 1] - y[:, None, level]
            chunks.append(smallest(along.square_().addcmul_(across, across), min(topk, size))[1] + start)
        found.append(torch.cat(chunks, 1))
        start += size
    index = torch.cat(found, 2)
    if usable is None:
        return index, torch.ones_like(index, dtype=torch.bool)
    return index, usable[:, None].expand(-1, index.shape[1], -1).gather(2, index)
