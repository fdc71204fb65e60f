"""Totals of each class over a training, from which losses for rare classes derive their weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from poise.distributed import sum_over_ranks


class ClassTotals(nn.Module):
    """Totals of each class since the start of the training, of all processes, as a buffer (C,R).

    The buffer is part of the state dict, and so of checkpoints. Only training steps add to it: ``add`` does nothing in
    evaluation mode or without gradients.

    Args:
        columns: R, the number of totals of a class.
        dtype: of the totals; integers stay exact.
    """

    totals: Tensor

    def __init__(self, num_classes: int, columns: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("totals", torch.zeros(num_classes, columns, dtype=dtype))

    def add(self, values: Tensor, reduce: Callable[[Tensor], Tensor] = sum_over_ranks) -> None:
        """Add the values (C,R) of a training step; those that are not finite count as 0.

        Args:
            reduce: from the values of this process to those of all; ``mean_over_ranks`` for values that are divided by
                a normalizer, which is a mean over processes.
        """
        if self.training and torch.is_grad_enabled():
            new = reduce(values.detach())
            self.totals += torch.where(new.isfinite(), new, 0).to(self.totals.dtype)
