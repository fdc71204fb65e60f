"""IoU of objects and places, most of which is 0.

An accelerator computes all of it, (B,g,N). A CPU computes the blocks of neighboring places whose hull touches an
object, one row each, (R,BLOCK): contiguous numbers, as vector units want them. Who compares is written once for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from poise.pairwise import listing
from poise.pairwise.blocks import Blocks, first_of, in_blocks, row_and_step
from poise.pairwise.chunks import CACHE, object_chunks
from poise.pairwise.pairs import AllPairs, ListedPairs, Pairs
from poise.pairwise.planes import BLOCK, Planes, equal, largest, largest_of_blocks
from poise.structures import GroundTruth

TEMPORARIES = 4  # planes of pairs alive at once, against what streaming allows for
ROWS = CACHE // (4 * BLOCK)  # whose planes stay in a CPU's cache


class Overlaps(Protocol):
    """Of objects (B,g) and places (B,N). Values of pairs have the shape of ``iou`` and are not negative."""

    @property
    def iou(self) -> Tensor:
        """In [0,1]; of objects that are none 0."""

    def of_objects(self, values: Tensor) -> Tensor:
        """What (B,g) says of the object of every pair; broadcasts."""

    def of_places(self, values: Tensor) -> Tensor:
        """What (B,N) says of the place of every pair."""

    def of_touching(self, values: Callable[[Pairs, Tensor], Tensor]) -> Tensor:
        """Values of pairs whose IoU is positive, from these pairs and their IoU; 0 of the others."""

    def reaches(self, values: Tensor, most: Tensor) -> Tensor:
        """1 where a pair's value is ``most`` (B,N) of its place, 0 elsewhere, a new tensor."""

    def object_most(self, values: Tensor) -> Tensor:
        """The greatest of every object's pairs, (B,g)."""

    def place_most(self, values: Tensor) -> Tensor:
        """The greatest of every place's pairs, (B,N)."""

    def claims(self, values: Tensor, most: Tensor, claim: Tensor) -> Tensor:
        """The greatest ``claim`` (B,g) on every place (B,N) of objects for which nowhere is a greater value.

        Args:
            most: (B,g) each object's greatest value; another number where it claims nothing.
        """

    def largest(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Places (B,g,count) of each object's greatest values, ties to the lowest index, and these values."""

    def dense(self, values: Tensor) -> Tensor:
        """Values of all pairs, (B,g,N)."""

    def lower_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        """Lower ``told`` (B,C,N), at the places of every class (B,g), to the least below 1 that its objects say."""


@dataclass(frozen=True)
class AllOverlaps:
    """Of all pairs, (B,g,N)."""

    iou: Tensor

    def of_objects(self, values: Tensor) -> Tensor:
        return values[..., None]

    def of_places(self, values: Tensor) -> Tensor:
        return values[:, None]

    def of_touching(self, values: Callable[[Pairs, Tensor], Tensor]) -> Tensor:
        pairs = AllPairs(self.iou > 0)
        return pairs.dense(values(pairs, self.iou))

    def reaches(self, values: Tensor, most: Tensor) -> Tensor:
        return equal(values, most[:, None])

    def object_most(self, values: Tensor) -> Tensor:
        return values.amax(2)

    def place_most(self, values: Tensor) -> Tensor:
        return values.amax(1)

    def claims(self, values: Tensor, most: Tensor, claim: Tensor) -> Tensor:
        return equal(values, most[..., None]).mul_(claim[..., None]).amax(1)

    def largest(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return largest(values, count)

    def dense(self, values: Tensor) -> Tensor:
        return values

    def lower_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        told.scatter_reduce_(1, labels[..., None].expand_as(values), values, "amin")


@dataclass(frozen=True)
class BlockOverlaps:
    """Of R objects and blocks of places near them, (R,BLOCK)."""

    iou: Tensor
    shape: torch.Size  # B, g, N
    owner: Tensor  # (R,) int64 into B * g, the object
    block: Tensor  # (R,) int64 into B * S, the S blocks of every image

    @property
    def blocks(self) -> int:
        """S, of which the last may reach beyond N."""
        return -(-self.shape[2] // BLOCK)

    def of_objects(self, values: Tensor) -> Tensor:
        return values.flatten().index_select(0, self.owner)[:, None]

    def of_places(self, values: Tensor) -> Tensor:
        return in_blocks(values, 0.0).flatten(0, 1).index_select(0, self.block)

    def of_touching(self, values: Callable[[Pairs, Tensor], Tensor]) -> Tensor:
        position = listing.positions(self.iou > 0)
        pairs = ListedPairs.of_blocks(self.shape, self.owner, self.block, position)
        found = values(pairs, self.iou.flatten().index_select(0, position))
        return torch.zeros_like(self.iou).flatten().scatter_(0, position, found).view_as(self.iou)

    def reaches(self, values: Tensor, most: Tensor) -> Tensor:
        return self.of_places(most).eq_(values)

    def object_most(self, values: Tensor) -> Tensor:
        most = values.new_zeros(self.shape[:2].numel())
        return most.scatter_reduce_(0, self.owner, values.amax(1), "amax").view(self.shape[:2])

    def place_most(self, values: Tensor) -> Tensor:
        return self._place_most(values, self.block)

    def claims(self, values: Tensor, most: Tensor, claim: Tensor) -> Tensor:
        most, claim = (self.of_objects(said) for said in (most, claim))
        row = listing.positions(values.amax(1, keepdim=True) == most)
        claimed = equal(values[row], most[row]).mul_(claim[row])
        return self._place_most(claimed, self.block[row])

    def largest(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        cells = self._cells()
        shape = (*self.shape[:2], self.blocks)
        most = values.new_zeros(shape)
        most.view(-1).scatter_(0, cells, values.amax(1))
        row = cells.new_full(shape, len(values))
        row.view(-1).scatter_(0, cells, torch.arange(len(values)))
        values = torch.cat((values, values.new_zeros(1, BLOCK)))  # and a row of blocks that touch nothing
        return largest_of_blocks(most, lambda block: values[row.gather(2, block)].flatten(2), self.shape[2], count)

    def dense(self, values: Tensor) -> Tensor:
        batch, count, places = self.shape
        whole = values.new_zeros(batch * count * self.blocks, BLOCK)
        whole[self._cells()] = values
        return whole.view(batch, count, -1)[..., :places]

    def lower_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        position = listing.positions(values < 1)
        (row, step), places = row_and_step(position), self.shape[2]
        image = self.owner // self.shape[1]
        first = first_of(self.block, places) + image * (told.shape[1] - 1) * places  # of class 0, into B * C * N
        target = (first + labels.flatten()[self.owner] * places)[row] + step
        told.view(-1).scatter_reduce_(0, target, values.flatten()[position], "amin")

    def _cells(self) -> Tensor:
        """Where the rows stand among all blocks of all objects, (R,) into B * g * S."""
        return self.owner * self.blocks + self.block % self.blocks

    def _place_most(self, values: Tensor, block: Tensor) -> Tensor:
        most = values.new_zeros(self.shape[0] * self.blocks, BLOCK)
        most.scatter_reduce_(0, block[:, None].expand_as(values), values, "amax")
        return most.view(self.shape[0], -1)[:, : self.shape[2]]


def overlaps_with(boxes: Tensor, usable: Tensor | None = None) -> Callable[[Tensor, Tensor], Overlaps]:
    """How ``valid`` objects (B,g,4) and which are valid (B,g) overlap boxes of places.

    Args:
        boxes: (B|1,N,4); what is not finite counts as 0.
        usable: (B,N) bool, places that may overlap anything; all.
    """
    planes = Planes.of(boxes)

    def of_all(objects: Tensor, valid: Tensor) -> Overlaps:
        iou = planes.iou(objects).mul_(valid[..., None])
        return AllOverlaps(iou if usable is None else iou.mul_(usable[:, None]))

    if not listing.allows_dynamic_shapes(boxes.device):
        return of_all
    low, high = torch.stack((planes.left, planes.top)), torch.stack((planes.right, planes.bottom))
    blocks = Blocks.of(low, high)
    used = None if usable is None or usable.all() else usable.float()

    def of_blocks(objects: Tensor, valid: Tensor) -> Overlaps:
        owner, block = blocks.near(objects, valid)
        sides = objects.flatten(0, 1)[:, None]
        iou = torch.empty(len(owner), BLOCK)
        for rows in zip(iou.split(ROWS), owner.split(ROWS), block.split(ROWS), strict=True):
            Planes.from_sides(*blocks.take(rows[2])).iou(sides.index_select(0, rows[1]), out=rows[0][:, None])
        found = BlockOverlaps(iou, torch.Size((*valid.shape, boxes.shape[1])), owner, block)
        if used is not None:
            found.iou.mul_(found.of_places(used))
        return found

    return of_blocks


def best_overlap(boxes: Tensor, truth: GroundTruth) -> Tensor:
    """IoU of each place's box (B,N,4) with the object that it overlaps most, (B,N)."""
    best, overlaps = torch.zeros_like(boxes[..., 0], dtype=torch.float32), overlaps_with(boxes)
    for part in object_chunks(best.numel() * TEMPORARIES, 1, truth.labels.shape[1]):
        found = overlaps(truth.boxes[:, part], truth.valid[:, part])
        best = torch.maximum(best, found.place_most(found.iou))
    return best
