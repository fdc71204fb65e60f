"""Blocks of neighboring places, of which first the hull is looked at: most touch no object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.pairwise.listing import pairs_at, positions
from poise.pairwise.planes import BLOCK


@dataclass(frozen=True)
class Blocks:
    """S blocks an image, the last filled up with what touches nothing."""

    low: Tensor  # (2,B|1,S,BLOCK) float32: left and top of each place
    high: Tensor  # right and bottom

    @staticmethod
    def of(low: Tensor, high: Tensor) -> Blocks:
        """From (2,B|1,N); points are both."""
        return Blocks(in_blocks(low, torch.inf), in_blocks(high, -torch.inf))

    @property
    def count(self) -> int:
        return self.low.shape[2]

    def near(self, objects: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Objects (R,) into B * g and blocks (R,) into B * S: valid ones (B,g,4) and hulls that share some area."""
        sides = objects[..., None].unbind(2)
        hulls = (*self.low.amin(3)[:, :, None], *self.high.amax(3)[:, :, None])
        return pairs_at(positions(touching(hulls, sides) & valid[..., None]), valid.shape[1], self.count)

    def take(self, block: Tensor) -> tuple[Tensor, ...]:
        """Left, top, right and bottom of blocks (R,) into B * S, each (R,BLOCK)."""
        row = block % self.count if self.low.shape[1] == 1 else block
        return tuple(plane.flatten(0, 1).index_select(0, row) for plane in (*self.low, *self.high))


def first_of(block: Tensor, places: int) -> Tensor:
    """The first places, into B * N, of blocks into B * S, where an image has N ``places``."""
    count = -(-places // BLOCK)
    return block * BLOCK - block // count * (count * BLOCK - places)


def row_and_step(position: Tensor) -> tuple[Tensor, Tensor]:
    """Row and place in it of positions (P,) in rows of ``BLOCK``; shifted, as dividing takes ten times as long."""
    return position >> BLOCK.bit_length() - 1, position & BLOCK - 1


def in_blocks(values: Tensor, beyond: float) -> Tensor:
    """(...,N) as (...,S,BLOCK); ``beyond`` fills the last block up."""
    more = -values.shape[-1] % BLOCK
    return (pad(values, (0, more), value=beyond) if more else values).unflatten(-1, (-1, BLOCK))


def touching(places: Sequence[Tensor], sides: Sequence[Tensor]) -> Tensor:
    """Whether boxes, one plane a side, have some area in common; points, whether they lie inside."""
    (left, top, right, bottom), (x1, y1, x2, y2) = places, sides
    across = torch.minimum(right - x1, x2 - left)
    return torch.minimum(across, torch.minimum(bottom - y1, y2 - top)) > 0
