"""Which images make which batch, on which rank: a pure function of (seed, epoch, rank, number of ranks)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.augment.chance import seed_of
from poise.suggestions import plural


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (count,) in which an epoch sees the images; the same on every rank."""
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    return torch.randperm(count, generator=generator)


def global_batches(order: Tensor, batch_size: int, wide: Tensor | None = None) -> list[Tensor]:
    """Cut an order into batches; the last may be smaller.

    With ``wide`` (count,) bool, batches hold only wide or only tall images, in the order in which they fill up;
    what is left of both at the end makes the last batches together (MMDetection's grouping).
    """
    if wide is None:
        return list(order.split(batch_size))
    full, ends, rest = [], [], []
    for kind in (True, False):
        positions = (wide[order] == kind).nonzero().flatten()
        whole = len(positions) // batch_size * batch_size
        batches = positions[:whole].reshape(-1, batch_size)
        full.append(batches)
        ends.append(batches[:, -1])
        rest.append(positions[whole:])
    filled = torch.cat(full)[torch.cat(ends).argsort()]
    left = torch.cat(rest).sort().values
    return [*order[filled].unbind(0), *(order[left].split(batch_size) if len(left) else ())]


def share(batch: Tensor, rank: int, world_size: int) -> Tensor:
    """A rank's part of a global batch: consecutive images; the first ranks take one more where it does not divide."""
    return batch.tensor_split(world_size)[rank]


@dataclass(frozen=True)
class EpochPlan:
    """The batches of every epoch for one rank.

    Batch g of an epoch is the same set of images whatever the number of ranks: it is dealt in consecutive parts
    whose sizes differ by one image at most. Every rank has the same number of batches. A last batch with fewer
    images than ranks is left out (``left_out`` says how many images an epoch loses by this; other epochs lose others).
    """

    count: int  # images of the data set
    batch_size: int  # images of a global batch
    seed: int
    rank: int = 0
    world_size: int = 1
    wide: Tensor | None = None  # (count,) bool groups images by orientation
    drop_last: bool = False  # leave out a last batch that is not full

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("the data set has no images to train on")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size} processes does not exist")
        if self.batch_size < self.world_size:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be dealt to {self.world_size} processes: "
                f"use a batch of at least {self.world_size}, or fewer processes"
            )
        if not self.batches_per_epoch:
            raise ValueError(
                f"{plural(self.count, 'image')} make no batch of {self.batch_size} for {self.world_size} processes: "
                "use a smaller batch, fewer processes, or drop_last=False"
            )

    @property
    def left_out(self) -> int:
        """Images that each epoch does not show, because they cannot be dealt to all ranks or the batch is not full."""
        last = self.count % self.batch_size
        return last if last < (self.batch_size if self.drop_last else self.world_size) else 0

    @property
    def batches_per_epoch(self) -> int:
        return -(-(self.count - self.left_out) // self.batch_size)

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[list[int]]:
        """This rank's images of each batch from ``start_batch`` on."""
        order = epoch_order(self.count, self.seed, epoch)
        for batch in global_batches(order, self.batch_size, self.wide)[start_batch : self.batches_per_epoch]:
            yield share(batch, self.rank, self.world_size).tolist()
