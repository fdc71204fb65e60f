"""No sampling: every place that is not ignored (dense heads, and comparisons without chance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class TakeAll:
    """All positives and all negatives."""

    needs_loss: ClassVar[bool] = False

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        places = torch.arange(assignment.index.shape[1], device=assignment.index.device)
        return Sample(places.expand_as(assignment.index), ~assignment.ignored)
