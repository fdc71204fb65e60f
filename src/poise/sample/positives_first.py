"""Which of a head's places become queries of a decoder (Co-DETR: Zong et al. 2023, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class PositivesFirst:
    """The positives of each image, ``most`` at most and then at random; with ``fill`` also negatives at random.

    Negatives fill every image up to the number of the image with the most positives, but to ``least`` at least. So the
    original's code has it; the article lends positives alone.

    Args:
        random: False takes the lowest indices instead, for comparing numbers.
    """

    needs_loss: ClassVar[bool] = False
    max_queries: int = 300
    min_queries: int = 9
    fill: bool = True
    random: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_queries <= self.max_queries:
            raise ValueError(f"{self}: 1 <= min_queries <= max_queries")

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Positives ahead, (B,S) of at most ``most`` places."""
        wanted = assignment.positive | (assignment.negative if self.fill else False)
        key = assignment.positive.long() + wanted.long() + self._keys(assignment, generator)
        best = key.topk(min(self.max_queries, key.shape[1]), 1)
        count = assignment.positive.sum(1)
        if self.fill:
            count = count.amax().clamp(min=self.min_queries).expand_as(count)
        slots = torch.arange(best.indices.shape[1], device=key.device)
        return Sample(best.indices, (slots < count[:, None]) & wanted.gather(1, best.indices))

    def _keys(self, assignment: Assignment, generator: torch.Generator | None) -> Tensor:
        """(B,N) float64 in [0,1), all different: the greater the sooner."""
        places = assignment.index
        if self.random:
            return torch.rand(places.shape, generator=generator, device=places.device, dtype=torch.float64)
        order = torch.arange(places.shape[1], 0, -1, device=places.device, dtype=torch.float64)
        return (order / (places.shape[1] + 1)).expand(places.shape)
