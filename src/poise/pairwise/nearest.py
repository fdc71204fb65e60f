"""The places nearest to each of many points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.pairwise import listing
from poise.pairwise.blocks import in_blocks
from poise.pairwise.chunks import object_chunks
from poise.pairwise.planes import BLOCK, inside, ordered_positions, smallest

LOOK = 16  # blocks that are looked into, those whose hulls are nearest
SURE = 0.9999  # of the distance to the next hull, within which no rounding matters


def nearest(points: Sequence[Tensor], centers: Sequence[Tensor], count: int) -> Tensor:
    """Indices (B,g,count) of the nearest centers x, y (B,1,n) of each point x, y (B,g,1), ties to the lowest index.

    On a CPU only ``LOOK`` blocks of neighbors are looked into, where there are many more and they prove to be enough.
    """
    (batch, _, places), objects = centers[0].shape, points[0].shape[1]
    few = listing.allows_dynamic_shapes(points[0].device) and places >= 4 * LOOK * BLOCK
    blocks = [in_blocks(plane.squeeze(1), torch.inf) for plane in centers] if few else []
    found = []
    for part in object_chunks(batch, places // BLOCK + LOOK * BLOCK if few else places, objects, points[0].device):
        some = [z[:, part] for z in points]
        near = _in_near_blocks(some, blocks, count) if few else None
        found.append(smallest(_apart(some, centers), count)[1] if near is None else near)
    return torch.cat(found, 1)


def _in_near_blocks(points: Sequence[Tensor], blocks: Sequence[Tensor], count: int) -> Tensor | None:
    """The same of the nearest blocks' places, x, y (B,S,BLOCK); None where others may be as near."""
    gaps = [torch.maximum(b.amin(2)[:, None] - z, z - b.amax(2)[:, None]) for z, b in zip(points, blocks, strict=True)]
    bound = gaps[1].clamp_(min=0).square_().addcmul_(gaps[0].clamp_(min=0), gaps[0])
    bound, block = bound.topk(LOOK + 1, largest=False)
    block = block[..., :LOOK].sort(-1).values
    row = block + torch.arange(len(block))[:, None, None] * blocks[0].shape[1]
    taken = [plane.flatten(0, 1).index_select(0, row.flatten()).view(*block.shape[:2], -1) for plane in blocks]
    apart = _apart(points, taken)
    position = ordered_positions(apart, count)
    if not (apart.gather(2, position[..., -1:]) < SURE * bound[..., -1:]).all():
        return None
    return inside(block).gather(2, position)


def _apart(points: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Squared distances."""
    x, y = (point - place for point, place in zip(points, places, strict=True))
    return y.square_().addcmul_(x, x)
