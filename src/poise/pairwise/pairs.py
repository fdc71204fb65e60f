"""Pairs of object and place: all of them with a mask, or on a CPU a list of those that count.

About one place in a hundred lies inside an object. An accelerator would have to wait until it is known how many do, so
that there all pairs (B,g,N) are computed and masked; a CPU waits for nobody and lists them. Who weighs pairs is
written once for both: a value of every pair is (B,g,N) or (P,), and what it says of pairs that do not count is lost.

Sums are made in float64, so that their order shows in no float32 result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from poise.pairwise import listing
from poise.pairwise.blocks import Blocks, first_of, row_and_step, touching
from poise.pairwise.chunks import wide
from poise.structures import Predictions, QualityPredictions

TINY = 1e-12


class Pairs(Protocol):
    """Pairs of objects (B,g) and places (B,N) that count."""

    def of_objects(self, values: Tensor) -> Tensor:
        """What (B,g,...) says of the object of every pair."""

    def of_places(self, values: Tensor) -> Tensor:
        """What (1|B,N,...) says of the place of every pair."""

    def of_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        """What (B,N,C) says of the place of every pair and the class (B,g) of its object."""

    def of_all(self, values: Tensor) -> Tensor:
        """Values of all pairs (B,g,N) as values of these."""

    def only(self, kept: Tensor) -> Pairs:
        """Those of them that are ``kept``, a bool of every pair."""

    def or_all(self, others: Tensor) -> Pairs:
        """With all pairs (B,g,N) that are among the ``others`` of the objects that have none here."""

    def dense(self, values: Tensor) -> Tensor:
        """Values of all pairs, (B,g,N), 0 where a pair does not count."""

    def total(self, values: Tensor) -> Tensor:
        """Sums of every object's pairs, (B,g)."""

    def most(self, values: Tensor) -> Tensor:
        """The greatest of every object's pairs, (B,g); -infinity where there is none."""

    def place_total(self, values: Tensor) -> Tensor:
        """Sums of every place's pairs, (B,N)."""

    def place_most(self, values: Tensor) -> Tensor:
        """The greatest of every place's pairs, (B,N); -infinity where there is none."""

    def place_owner(self, chosen: Tensor) -> Tensor:
        """The first object of every place, (B,N), of those whose pair is ``chosen``; g where there is none."""

    def tell_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        """Write into ``told`` (B,C,N), at the places of every class (B,g), what the last of its objects says there."""


@dataclass(frozen=True)
class AllPairs:
    """All pairs, and which of them count."""

    held: Tensor  # (B,g,N) bool

    def of_objects(self, values: Tensor) -> Tensor:
        return values[:, :, None]

    def of_places(self, values: Tensor) -> Tensor:
        return values[:, None]

    def of_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        return values.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, values.shape[1]))

    def of_all(self, values: Tensor) -> Tensor:
        return values

    def only(self, kept: Tensor) -> AllPairs:
        return AllPairs(self.held & kept)

    def or_all(self, others: Tensor) -> AllPairs:
        return AllPairs(torch.where(self.held.any(2, keepdim=True), self.held, others))

    def dense(self, values: Tensor) -> Tensor:
        return torch.where(self.held, values, 0.0)

    def total(self, values: Tensor) -> Tensor:
        return self.dense(values).sum(2, dtype=wide(values.device)).float()

    def most(self, values: Tensor) -> Tensor:
        return torch.where(self.held, values, -torch.inf).amax(2)

    def place_total(self, values: Tensor) -> Tensor:
        return self.dense(values).sum(1, dtype=wide(values.device)).float()

    def place_most(self, values: Tensor) -> Tensor:
        return torch.where(self.held, values, -torch.inf).amax(1)

    def place_owner(self, chosen: Tensor) -> Tensor:
        count = self.held.shape[1]
        order = torch.arange(count, dtype=torch.int32, device=chosen.device)[:, None]
        return torch.where(self.held & chosen, order, count).amin(1).long()

    def tell_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        order = torch.arange(1, self.held.shape[1] + 1, device=labels.device)[:, None]
        claims = torch.where(self.held, order, 0)
        last = torch.zeros_like(told, dtype=torch.int64)
        last = last.scatter_reduce(1, labels[..., None].expand_as(claims), claims, "amax")
        said = values.expand_as(claims).gather(1, (last - 1).clamp(min=0))
        told.copy_(torch.where(last > 0, said, told))


@dataclass(frozen=True)
class ListedPairs:
    """The P pairs that count."""

    shape: torch.Size  # B, g, N
    owner: Tensor  # (P,) int64 into B * g, the object
    place: Tensor  # (P,) int64 into B * N

    @staticmethod
    def of_bags(place: Tensor, places: int) -> ListedPairs:
        """Of each object and the K of all places that (B,g,K) names."""
        batch, count, size = place.shape
        owner = torch.arange(batch * count, device=place.device)[:, None].expand(-1, size)
        first = torch.arange(batch, device=place.device)[:, None, None] * places
        return ListedPairs(torch.Size((batch, count, places)), owner.flatten(), (place + first).flatten())

    @staticmethod
    def of_blocks(shape: torch.Size, owner: Tensor, block: Tensor, position: Tensor) -> ListedPairs:
        """At ``position`` (P,) into rows (R,BLOCK) of objects (R,) and blocks (R,) of places."""
        row, step = row_and_step(position)
        place = first_of(block, shape[2]).index_select(0, row) + step
        return ListedPairs(shape, owner.index_select(0, row), place)

    def of_objects(self, values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, self.owner)

    def of_places(self, values: Tensor) -> Tensor:
        shared = len(values) < self.shape[0]
        return values.flatten(0, 1).index_select(0, self.place % self.shape[2] if shared else self.place)

    def of_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        return values.flatten().index_select(0, self.place * values.shape[2] + self.of_objects(labels))

    def of_all(self, values: Tensor) -> Tensor:
        return values.flatten().index_select(0, self._position())

    def only(self, kept: Tensor) -> ListedPairs:
        kept = listing.positions(kept)
        return ListedPairs(self.shape, self.owner.index_select(0, kept), self.place.index_select(0, kept))

    def or_all(self, others: Tensor) -> ListedPairs:
        without = torch.bincount(self.owner, minlength=self.shape[0] * self.shape[1]).view(self.shape[:2]) == 0
        image, item = (without & others.any(2)).nonzero().unbind(1)
        row, place = others[image, item].nonzero().unbind(1)
        more = _listed(self.shape, image[row], item[row], place)
        return ListedPairs(self.shape, torch.cat((self.owner, more.owner)), torch.cat((self.place, more.place)))

    def dense(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.shape.numel()).scatter_(0, self._position(), values).view(self.shape)

    def total(self, values: Tensor) -> Tensor:
        return self._sum(values, self.owner, self.shape[:2])

    def most(self, values: Tensor) -> Tensor:
        return self._greatest(values, self.owner, self.shape[:2])

    def place_total(self, values: Tensor) -> Tensor:
        return self._sum(values, self.place, self.shape[::2])

    def place_most(self, values: Tensor) -> Tensor:
        return self._greatest(values, self.place, self.shape[::2])

    def place_owner(self, chosen: Tensor) -> Tensor:
        count = self.shape[1]
        first = self.place.new_full(self.shape[::2], count).flatten()
        owner = torch.where(chosen, self.owner % count, count)
        return first.scatter_reduce_(0, self.place, owner, "amin").view(self.shape[::2])

    def tell_classes(self, values: Tensor, labels: Tensor, told: Tensor) -> None:
        count = self.shape[1]
        order, pair = (self._class_position(labels, told.shape[1]) * count + self.owner % count).sort()
        target = order // count
        last = torch.cat((target[1:] != target[:-1], target.new_ones(min(1, len(target)), dtype=torch.bool)))
        told.view(-1).scatter_(0, target[last], values[pair[last]])

    def _position(self) -> Tensor:
        """Where the pairs stand among all."""
        return self.owner * self.shape[2] + self.place % self.shape[2]

    def _class_position(self, labels: Tensor, classes: int) -> Tensor:
        """Where the pairs' places and the classes of their objects stand in (B,C,N)."""
        image, place = self.place // self.shape[2], self.place % self.shape[2]
        return (image * classes + self.of_objects(labels)) * self.shape[2] + place

    def _sum(self, values: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
        total = values.new_zeros(shape.numel(), dtype=wide(values.device))
        return total.index_add_(0, key, values.to(total.dtype)).float().view(shape)

    def _greatest(self, values: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
        return values.new_full((shape.numel(),), -torch.inf).scatter_reduce_(0, key, values, "amax").view(shape)


def class_scores_of_pairs(predictions: Predictions, labels: Tensor, pairs: Pairs) -> Tensor:
    """The score of every pair's place for the class (B,g) of its object.

    From float64, since on a CPU the last bit of a float32 sigmoid depends on where the number lies in memory.
    """
    dtype = wide(labels.device)
    said: dict[str, Tensor] = {"logits": pairs.of_classes(predictions.logits, labels).to(dtype)[..., None]}
    if isinstance(predictions, QualityPredictions):
        said["quality"] = pairs.of_places(predictions.quality).to(dtype)
    return replace(predictions, **said).scores().squeeze(-1).float()  # type: ignore[arg-type]


def between(values: Tensor, low: Tensor, high: Tensor, pairs: Pairs) -> Tensor:
    """Values of pairs as shares of the way from the ``low`` (B,g) to the ``high`` (B,g) of their object."""
    return (values - pairs.of_objects(low) + TINY) / pairs.of_objects(high - low + TINY)


def pairs_of(held: Tensor) -> Pairs:
    """Those of all pairs (B,g,N) that are ``held``."""
    if not listing.allows_dynamic_shapes(held.device):
        return AllPairs(held)
    return ListedPairs(held.shape, *listing.pairs_at(listing.positions(held), *held.shape[1:]))


def pairs_inside(centers: Tensor, boxes: Tensor, valid: Tensor) -> Pairs:
    """Pairs of valid objects (B,g) with the places (1|B,N,2) strictly inside their boxes (B,g,4)."""
    points = centers.float().nan_to_num(0.0, 0.0, 0.0).permute(2, 0, 1).contiguous()
    if not listing.allows_dynamic_shapes(boxes.device):
        places = (*points[:, :, None], *points[:, :, None])
        return AllPairs(touching(places, boxes[..., None].unbind(2)) & valid[..., None])
    blocks = Blocks.of(points, points)
    owner, block = blocks.near(boxes, valid)
    sides = boxes.flatten(0, 1).index_select(0, owner)[..., None].unbind(1)
    position = listing.positions(touching(blocks.take(block), sides))
    return ListedPairs.of_blocks(torch.Size((*valid.shape, points.shape[2])), owner, block, position)


def _listed(shape: torch.Size, image: Tensor, item: Tensor, place: Tensor) -> ListedPairs:
    return ListedPairs(shape, image * shape[1] + item, image * shape[2] + place)
