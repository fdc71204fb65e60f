"""No sampling: every prior that is not ignored, for comparisons without random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class TakeAll:
    """Select all positives and all negatives."""

    needs_loss: ClassVar[bool] = False

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return all priors, with a mask of those that are not ignored."""
        index = torch.arange(assignment.index.shape[1], device=assignment.index.device)
        return Sample(index.expand_as(assignment.index), ~assignment.ignored)
