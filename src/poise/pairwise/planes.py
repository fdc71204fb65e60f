"""Pairs of objects and places with the places last, (B,g,N): long contiguous rows, as vector units want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.boxes import EPS
from poise.structures import Predictions, Priors

BLOCK = 32  # neighboring places of which first the least is looked at
INFINITY = 0x7F800000  # the bits of float32's


@dataclass(frozen=True)
class Planes:
    """Boxes of places, one contiguous plane a side."""

    left: Tensor  # all (B,N) or (1,N) float32
    top: Tensor
    right: Tensor
    bottom: Tensor
    area: Tensor

    @staticmethod
    def of(boxes: Tensor) -> Planes:
        """From (B,N,4); what is not finite counts as 0."""
        boxes = boxes.nan_to_num(0.0, 0.0, 0.0)
        return Planes.from_sides(*boxes.float().permute(2, 0, 1).contiguous().unbind(0))

    @staticmethod
    def from_sides(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Planes:
        return Planes(left, top, right, bottom, (right - left) * (bottom - top))

    def iou(self, objects: Tensor, out: Tensor | None = None) -> Tensor:
        """With objects (B,g,4): (B,g,N), to the bit what ``boxes.iou`` gives; written to ``out`` where it is given."""
        x1, y1, x2, y2 = objects[..., None].unbind(2)
        shared = (torch.minimum(self.right[:, None], x2) - torch.maximum(self.left[:, None], x1)).clamp_(min=0)
        shared *= (torch.minimum(self.bottom[:, None], y2) - torch.maximum(self.top[:, None], y1)).clamp_(min=0)
        union = (self.area[:, None] + (x2 - x1) * (y2 - y1)).sub_(shared)
        return torch.div(shared, union.clamp_(min=EPS), out=shared if out is None else out)


def depth(x: Tensor, y: Tensor, sides: Sequence[Tensor]) -> Tensor:
    """The least distance to the four sides of a box, positive strictly inside; shapes broadcast."""
    x1, y1, x2, y2 = sides
    across = torch.minimum(x - x1, x2 - x)
    return torch.minimum(across, torch.minimum(y - y1, y2 - y))


def center_planes(priors: Priors) -> tuple[Tensor, Tensor]:
    """x and y of the places, both (B|1,1,N) and contiguous."""
    x, y = priors.centers.float().permute(2, 0, 1).contiguous()[:, :, None].unbind(0)
    return x, y


def stride_planes(priors: Priors) -> Tensor:
    """Strides of the places, (B|1,1,N)."""
    return priors.strides.reshape(-1, 1, priors.strides.shape[-1])


def sides_of(objects: Tensor) -> tuple[Tensor, ...]:
    """x1, y1, x2, y2 of objects (B,g,4), each (B,g,1)."""
    return objects[..., None].unbind(2)


def around_middle(sides: Sequence[Tensor], reach: Tensor) -> tuple[Tensor, ...]:
    """Sides of the squares of ``reach`` px around the middle of boxes x1, y1, x2, y2; shapes broadcast."""
    x1, y1, x2, y2 = sides
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - reach, y - reach, x + reach, y + reach


def first_equal(values: Tensor, wanted: Tensor) -> Tensor:
    """For every place the first of (B,g,N) objects whose value is ``wanted`` (B,N); g where there is none."""
    count = values.shape[1]
    order = torch.arange(count, 0, -1, device=values.device, dtype=values.dtype)[:, None]
    return count - equal(values, wanted[:, None]).mul_(order).amax(1).long()


def equal(values: Tensor, wanted: Tensor) -> Tensor:
    """1 where values are as wanted and 0 elsewhere, a new tensor of their type.

    To multiply by: on a CPU, choosing by a mask takes ten to thirty times as long.
    """
    return values.clone().eq_(wanted)


def scores_of(predictions: Predictions, logits: Tensor) -> Tensor:
    """Scores (B,g,N) of some classes' logits (B,g,N), a new tensor."""
    return replace(predictions.float(), logits=logits.transpose(1, 2)).scores().transpose(1, 2)


def smallest_first(sizes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Objects (B,G) by size, ties to the lowest index, and how strongly each claims a place, (B,G).

    Claims are G for the first object down to 1, and 0 for what is none, so that the greatest claim is the answer.
    """
    order = sizes.argsort(dim=1, stable=True)
    count = sizes.shape[1]
    claims = torch.arange(count, 0, -1, device=sizes.device, dtype=torch.float32).expand(order.shape)
    claim = torch.zeros_like(sizes, dtype=torch.float32).scatter(1, order, claims)
    return order, claim * valid


def owner_of(claim: Tensor, order: Tensor) -> Tensor:
    """The objects (B,N) of the greatest claims (B,N); any where the claim is 0."""
    count = order.shape[1]
    return order.gather(1, (count - claim.long()).clamp(max=count - 1))


def rows(values: Tensor, labels: Tensor) -> Tensor:
    """Rows (B,g,N) of classes (B,g) of contiguous (B,C,N) values."""
    batch, classes, _ = values.shape
    first = torch.arange(batch, device=labels.device)[:, None] * classes
    return values.flatten(0, 1).index_select(0, (labels + first).flatten()).view(*labels.shape, -1)


def smallest(cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whether finite, and where: the ``count`` smallest of (...,N) float32 values, ties to the lowest index.

    None may be NaN. They lie in the ``count`` blocks of neighbors whose least values are smallest (ties again to the
    lowest), so that only these are sorted.
    """
    places = cost.shape[-1]
    if places < 2 * count * BLOCK:
        return _sorted(cost, torch.arange(places, device=cost.device), count)
    lows = _of_blocks(cost, torch.amin)
    block = _sorted(lows, torch.arange(lows.shape[-1], device=cost.device), count)[1]
    index = inside(block)
    return _sorted(_at(cost, index, torch.inf), index, count)


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where the ``count`` largest of (...,N) float32 numbers are, ties to the lowest index, and what they are.

    None may be NaN.
    """

    def of_blocks(block: Tensor) -> Tensor:
        return _at(values, inside(block), -torch.inf)

    return largest_of_blocks(_of_blocks(values, torch.amax), of_blocks, values.shape[-1], count)


def largest_of_blocks(
    most: Tensor, values: Callable[[Tensor], Tensor], places: int, count: int
) -> tuple[Tensor, Tensor]:
    """The same from the ``most`` (...,S) of every block.

    Args:
        values: blocks (...,k) to their numbers (...,k*BLOCK).
        places: N, within the last block.
    """
    block = smallest(-most, min(count, most.shape[-1]))[1].sort(-1).values
    index = inside(block)
    value = torch.where(index < places, values(block), -torch.inf)
    position = ordered_positions(-value, count)
    return index.gather(-1, position), value.gather(-1, position)


def largest_values(values: Tensor, count: int) -> Tensor:
    """The ``count`` largest of (...,N) numbers, descending."""
    if values.shape[-1] < 2 * count * BLOCK:
        return values.topk(count, -1).values
    block = _of_blocks(values, torch.amax).topk(count, -1).indices
    return _at(values, inside(block), -torch.inf).topk(count, -1).values


def inside(block: Tensor) -> Tensor:
    """Indices of the places in blocks (...,k), (...,k*BLOCK)."""
    return (block[..., None] * BLOCK + torch.arange(BLOCK, device=block.device)).flatten(-2)


def _at(values: Tensor, index: Tensor, beyond: float) -> Tensor:
    """Values (...,K) at an index into (...,N); ``beyond`` past the end, where the last block may reach."""
    places = values.shape[-1]
    if places % BLOCK == 0:
        return values.gather(-1, index)
    return torch.where(index < places, values.gather(-1, index.clamp(max=places - 1)), beyond)


def _of_blocks(values: Tensor, extreme: Callable[..., Tensor]) -> Tensor:
    """The least or the greatest of every ``BLOCK`` neighbors of (...,N), the last block perhaps shorter."""
    whole = values.shape[-1] // BLOCK * BLOCK
    found = extreme(values[..., :whole].unflatten(-1, (-1, BLOCK)), -1)
    if whole == values.shape[-1]:
        return found
    return torch.cat((found, extreme(values[..., whole:], -1, keepdim=True)), -1)


def ordered_positions(values: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest of (...,K) are, ascending, ties to the lowest."""
    return _sorted(values, torch.arange(values.shape[-1], device=values.device), count)[1]


def ordered(values: Tensor) -> Tensor:
    """Integers of 32 bits, as int64, that order as float32 numbers do; none may be NaN."""
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF)).long()


def _sorted(value: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of values (...,K) with their indices: whether finite, and index, of the ``count`` least pairs of both."""
    best = ordered(value).bitwise_left_shift_(32).bitwise_or_(index).topk(count, -1, largest=False).values
    return (best >> 32) < INFINITY, best & 0xFFFFFFFF
