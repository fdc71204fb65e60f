"""Sampling of the positives that become customized positive queries of a decoder (Co-DETR: Zong et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class PositivesFirst:
    """Select the positives of each image, at random if there are more than ``max_queries``.

    With ``fill``, negatives at random fill each image up to the largest number of positives of an image, but at least
    ``min_queries``, as in the original code; the article uses positives alone.

    Args:
        random: False selects the lowest indices instead, for comparison with other implementations.
    """

    needs_loss: ClassVar[bool] = False
    max_queries: int = 300
    min_queries: int = 9
    fill: bool = True
    random: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_queries <= self.max_queries:
            raise ValueError(f"{self}: 1 <= min_queries <= max_queries is needed")

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return at most ``max_queries`` priors per image, positives first."""
        candidates = assignment.positive | (assignment.negative if self.fill else False)
        key = assignment.positive.long() + candidates.long() + self._keys(assignment, generator)
        best = key.topk(min(self.max_queries, key.shape[1]), 1)
        count = assignment.positive.sum(1)
        if self.fill:
            count = count.amax().clamp(min=self.min_queries).expand_as(count)
        slots = torch.arange(best.indices.shape[1], device=key.device)
        return Sample(best.indices, (slots < count[:, None]) & candidates.gather(1, best.indices))

    def _keys(self, assignment: Assignment, generator: torch.Generator | None) -> Tensor:
        """Return distinct keys (B,N) float64 in [0,1); larger keys are selected first."""
        index = assignment.index
        if self.random:
            return torch.rand(index.shape, generator=generator, device=index.device, dtype=torch.float64)
        order = torch.arange(index.shape[1], 0, -1, device=index.device, dtype=torch.float64)
        return (order / (index.shape[1] + 1)).expand(index.shape)
